"""Make the training steps of a model on a CPU cheaper for a while: same model, same distributions, fewer passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from peftlab.training.attention import cheaper_attention
from peftlab.training.half_product import (
    HalfStates,
    HalfWeight,
    frozen_linear,
    half_lora_linear,
    in_half,
    is_frozen,
)
from peftlab.training.heap import freed_memory_kept
from peftlab.training.lora_product import lora_linear, low_rank
from peftlab.training.masks import MaskSource, dropout

_Forward = Callable[..., Any]


@contextmanager
def cheaper_steps(model: nn.Module, device: torch.device) -> Iterator[MaskSource | None]:
    """While this lasts, `model` in training mode takes its dropout masks from a `MaskSource`, and LoRA in one product.

    Where products are taken in bf16, frozen linear layers keep a copy of their weights in it. Nothing changes in
    evaluation mode, on another device than a CPU, and in what is saved: no module is replaced. Yields the source of
    the masks, None on another device.
    """
    if device.type != "cpu":
        yield None
        return
    source, states = MaskSource(), HalfStates()
    changed = [module for module in model.modules() if _make_cheaper(module, source, states)]
    restart = model.register_forward_pre_hook(lambda *_: source.restart() if model.training else None)
    try:
        with cheaper_attention(model, source), freed_memory_kept():
            yield source
    finally:
        restart.remove()
        states.forget()
        for module in changed:
            del module.forward


def _make_cheaper(module: nn.Module, source: MaskSource, states: HalfStates) -> bool:
    """Give `module` a cheaper forward of its own where there is one; say whether there was."""
    if "forward" in vars(module):  # somebody else's, such as accelerate's for 8-bit weights
        return False
    if type(module) is nn.Dropout and 0 < module.p < 1:
        module.forward = _dropout_forward(module, source)  # type: ignore[method-assign] # for as long as training lasts
        return True
    if low_rank(module) is not None:
        module.forward = _lora_forward(module, module.forward, source, states)
        return True
    if is_frozen(module):
        module.forward = _frozen_forward(module, module.forward, states)
        return True
    return False


def _dropout_forward(module: nn.Dropout, source: MaskSource) -> _Forward:
    def forward(values: Tensor) -> Tensor:
        return dropout(values, module.p, source) if module.training else values

    return forward


def _lora_forward(module: nn.Module, plain: _Forward, source: MaskSource, states: HalfStates) -> _Forward:
    frozen = HalfWeight(module.base_layer)  # type: ignore[arg-type] # what fits is a LoRA on a linear layer

    def forward(x: Tensor, *args: Any, **options: Any) -> Any:
        half, exact = in_half(), x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if not module.training or args or options or not (half or exact):
            return plain(x, *args, **options)
        update = low_rank(module)
        if update is None:
            return plain(x)
        if half:
            return half_lora_linear(update, frozen, x, states, source)
        return lora_linear(module, update, x, source)

    return forward


def _frozen_forward(module: Any, plain: _Forward, states: HalfStates) -> _Forward:
    frozen = HalfWeight(module)

    def forward(x: Tensor) -> Tensor:
        if not module.training or not in_half() or not is_frozen(module):
            unchanged: Tensor = plain(x)
            return unchanged
        return frozen_linear(frozen, x, states)

    return forward
