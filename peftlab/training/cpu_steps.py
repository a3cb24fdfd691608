"""Make the training steps of a model on a CPU cheaper for a while: same model, same distributions, fewer passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

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

_ATTENTION = "peftlab_cpu"
_Forward = Callable[..., Any]
_SOURCES: WeakKeyDictionary[nn.Module, MaskSource] = WeakKeyDictionary()
"""The source of every module of a model whose steps are cheaper: transformers knows attention by one name for all."""


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
    configs = _configs_of_attention(model)
    if configs:
        _register_attention()
        _SOURCES.update(dict.fromkeys(model.modules(), source))
        for config in configs:
            config._attn_implementation = _ATTENTION
    try:
        with freed_memory_kept():
            yield source
    finally:
        restart.remove()
        states.forget()
        for module in changed:
            del module.forward
        for config in configs:
            config._attn_implementation = "sdpa"
        if configs:
            for module in model.modules():
                _SOURCES.pop(module, None)


def _configs_of_attention(model: nn.Module) -> list[Any]:
    """Return the configurations by which modules of `model` choose torch's attention; encoder-decoders have several."""
    found = [getattr(module, "config", None) for module in model.modules()]
    return list({id(one): one for one in found if getattr(one, "_attn_implementation", None) == "sdpa"}.values())


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


def _register_attention() -> None:
    """Register attention with cheaper masks with transformers, under a name of our own."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    plain: _Forward = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        # Without a mask a decoder's attention leaves what comes later out by itself, and this one does not.
        said = options.get("is_causal")
        causal = attention_mask is None and (said if said is not None else getattr(module, "is_causal", False))
        others = any(options.get(name) is not None for name in ("position_bias", "cache", "softcap"))
        # The gradient of torch's own attention in bf16 takes several times as long as that of its parts on a CPU.
        slow = query.dtype == torch.bfloat16 and torch.is_grad_enabled()
        if causal or others or (dropout == 0.0 and not slow):
            output, _ = plain(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
            return output, None
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        return attention(query, key, value, attention_mask, p=dropout, scale=scale, source=_SOURCES[module]), None

    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_ATTENTION, sdpa_mask)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, p: float, scale: float, source: MaskSource
) -> Tensor:
    """Return softmax(scale q k^T + mask) v with dropout `p` on the weights, [batch, tokens, heads, width].

    `query`, `key`, `value`: [batch, heads, tokens, width]. `mask`: boolean, True where a key counts, or added to the
    scores; [batch or 1, heads or 1, tokens or 1, tokens]. torch's own attention with dropout also looks for rows that
    no key counts for, in three passes over the scores; texts have a token each.
    """
    batch, heads, tokens, width = query.shape
    keys = key.reshape(batch * heads, -1, width)
    queries = query.reshape(batch * heads, tokens, width)
    scores = torch.baddbmm(queries.new_empty(1), queries, keys.transpose(1, 2), beta=0.0, alpha=scale)
    scores = scores.view(batch, heads, tokens, -1)
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=scores.dtype).masked_fill_(~mask, torch.finfo(scores.dtype).min)
        scores = scores.add_(mask)
    weights = scores.softmax(-1)
    if p > 0:
        weights = dropout(weights, p, source)
    mixed = weights.view(batch * heads, tokens, -1) @ value.reshape(batch * heads, -1, value.shape[-1])
    return mixed.view(batch, heads, tokens, -1).transpose(1, 2)
