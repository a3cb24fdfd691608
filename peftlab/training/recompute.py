"""Gradient checkpointing: layers keep their input alone and are run again in the backward pass (Chen et al. 2016).

The memory of activations then grows by one hidden state a layer and token, and not by everything in between; a step
takes about one forward pass more (arXiv 1604.06174, section 4). A layer that is run again draws the same dropout masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from peftlab.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from peftlab.training.masks import MaskSource

_Forward = Callable[..., Any]


@contextmanager
def layers_recomputed(model: nn.Module, source: MaskSource | None) -> Iterator[None]:
    """While this lasts, training steps of `model` compute each layer once more in the backward pass.

    `source`: where the masks of the layers come from; None where that is torch. Raises UserError where the layers are
    not known, and where a method hands them keys and values: these would be handed over twice.
    """
    layers = layers_to_recompute(model)
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = partial(_checkpointed, layer, layer.forward, source)
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def layers_to_recompute(model: Any) -> list[nn.Module]:
    """Return the layers of `model` that can be run again; UserError as in `layers_recomputed`."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    config = getattr(model, "active_peft_config", None)
    if config is not None and config.peft_type == "PREFIX_TUNING":
        raise UserError(
            "train.gradient_checkpointing: prefix tuning hands its keys and values to every layer, which cannot take "
            "them twice; remove the key, or bound the memory by train.max_tokens"
        )
    # transformers 5.23 does not count the layers of ALBERT, which are run several times, among these.
    layers = [
        module
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer) or type(module).__name__ == "AlbertLayer"
    ]
    if not layers:
        raise UserError(
            "train.gradient_checkpointing: the layers of this encoder are not known; remove the key, or bound the "
            "memory by train.max_tokens"
        )
    return layers


def _checkpointed(layer: nn.Module, plain: _Forward, source: MaskSource | None, *args: Any, **options: Any) -> Any:
    import torch
    from torch.utils.checkpoint import checkpoint

    if not (layer.training and torch.is_grad_enabled()):
        return plain(*args, **options)
    if options.get("past_key_values") is not None:
        # A decoder's cache is of no use in training, and a second run would append to it.
        options["past_key_values"] = None
    contexts = partial(_same_masks, source) if source is not None else _no_contexts
    return checkpoint(partial(plain, **options), *args, use_reentrant=False, context_fn=contexts)


def _no_contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), nullcontext()


def _same_masks(source: MaskSource) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return what stands around a layer's first run and around its second one."""
    kept: list[Any] = []
    return _remember(source, kept), _repeat(source, kept)


@contextmanager
def _remember(source: MaskSource, kept: list[Any]) -> Iterator[None]:
    kept.append(source.state)
    yield


@contextmanager
def _repeat(source: MaskSource, kept: list[Any]) -> Iterator[None]:
    now = source.state
    source.state = kept[0]
    try:
        yield
    finally:
        source.state = now
