"""Attention with dropout for training steps on a CPU: what torch's own gives, in fewer passes over memory.

Compiled, a head of a text is gone through at a time, in the processor's cache, and its weights are computed anew in
the backward pass from two numbers a query (Dao et al. 2022, arXiv 2205.14135, appendix B), so that neither scores nor
copies of queries, keys and values are kept. In parts, as where nothing could be compiled, it spares the three passes
over the scores in which torch's own looks for rows that no key counts for; texts have a token each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from peftlab.training.compiled import LANES, kernels
from peftlab.training.last_made import LastMade
from peftlab.training.masks import MaskSource, dropout

_NAME = "peftlab_cpu"


class Biases(LastMade):
    """The mask that was turned into numbers last: all layers of a forward pass are given the same."""

    def __init__(self) -> None:
        super().__init__(_bias)

    def of(self, x: Tensor) -> Tensor:
        """Return what the mask `x` adds to scores: 0 where it is True, bf16's lowest elsewhere; numbers as they are.

        fp32's lowest number is no number of bf16, whose scores would be infinite, and NaN where no key counts.
        """
        return super().of(x) if x.dtype == torch.bool else x


def _bias(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape).masked_fill_(~mask, torch.finfo(torch.bfloat16).min)


_MEANS: WeakKeyDictionary[nn.Module, tuple[MaskSource, Biases]] = WeakKeyDictionary()
"""What attention takes for every module of a model while its steps are cheaper: transformers knows it by one name."""


@contextmanager
def cheaper_attention(model: nn.Module, source: MaskSource) -> Iterator[None]:
    """While this lasts, training steps of `model` take their attention from here where it asks for torch's."""
    configs = _configs(model.modules())
    if not configs:
        yield
        return
    _register()
    _MEANS.update(dict.fromkeys(model.modules(), (source, Biases())))
    for config in configs:
        config._attn_implementation = _NAME
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation = "sdpa"
        for module in model.modules():
            _MEANS.pop(module, None)


def _configs(modules: Iterable[nn.Module]) -> list[Any]:
    """Return the configurations by which modules choose torch's attention; encoder-decoders have several."""
    found = [getattr(module, "config", None) for module in modules]
    return list({id(one): one for one in found if getattr(one, "_attn_implementation", None) == "sdpa"}.values())


def _register() -> None:
    """Make this attention known to transformers, under a name of our own."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    plain: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS["sdpa"]

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
        source, biases = _MEANS[module]
        bias = None if attention_mask is None else biases.of(attention_mask)
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        return attention(query, key, value, bias, p=dropout, scale=scale, source=source), None

    ALL_ATTENTION_FUNCTIONS.register(_NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, sdpa_mask)


def attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, p: float, scale: float, source: MaskSource
) -> Tensor:
    """Return softmax(scale q k^T + bias) v with dropout `p` on the weights, [batch, queries, heads, width].

    `query`: [batch, heads, queries, width]; `key`, `value`: [batch, heads, keys, width]. `bias` is added to the
    scores: [batch or 1, heads or 1, queries or 1, keys].
    """
    shape = torch.Size((*query.shape[:3], key.shape[2]))
    if kernels() is not None and _fits(query, key, value, bias):
        kept = source.kept(shape, p) if p > 0 else None
        whole = None if bias is None else bias.expand(shape)
        parts = tuple(one if one.stride(-1) == 1 else one.contiguous() for one in (query, key, value))
        found: Tensor = _Attention.apply(*parts, whole, kept, scale, 1 / (1 - p))  # type: ignore[no-untyped-call]
        return found
    return _in_parts(query, key, value, bias, p=p, scale=scale, source=source)


def _fits(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> bool:
    """Say whether the compiled attention takes these."""
    if not all(one.dtype == torch.float32 and one.shape[-1] % LANES == 0 for one in (query, key, value)):
        return False
    if query.shape[-1] != value.shape[-1] or query.shape[:2] != key.shape[:2]:
        return False
    return bias is None or (bias.dtype == torch.float32 and bias.stride(-1) == 1 and not bias.requires_grad)


class _Attention(torch.autograd.Function):
    """The compiled attention; `kept` and `kept_scale` are those of the weights' dropout."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        kept: Tensor | None,
        scale: float,
        kept_scale: float,
    ) -> Tensor:
        """Return [batch, queries, heads, width]."""
        compiled = kernels()
        assert compiled is not None
        mixed, stats = compiled.attend(query, key, value, bias, kept, scale, kept_scale)
        ctx.save_for_backward(query, key, value, bias, kept, stats)
        ctx.scales = (scale, kept_scale)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, keys and values."""
        compiled = kernels()
        assert compiled is not None
        query, key, value, bias, kept, stats = ctx.saved_tensors
        scale, kept_scale = ctx.scales
        outer, asked = gradients[0].contiguous(), ctx.needs_input_grad[:3]
        found = compiled.attend_back(query, key, value, bias, kept, scale, kept_scale, stats, outer, asked)
        return *found, None, None, None, None


def _in_parts(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, p: float, scale: float, source: MaskSource
) -> Tensor:
    batch, heads, tokens, width = query.shape
    keys = key.reshape(batch * heads, -1, width)
    queries = query.reshape(batch * heads, tokens, width)
    scores = torch.baddbmm(queries.new_empty(1), queries, keys.transpose(1, 2), beta=0.0, alpha=scale)
    scores = scores.view(batch, heads, tokens, -1)
    if bias is not None:
        scores = scores.add_(bias)
    weights = scores.softmax(-1)
    if p > 0:
        weights = dropout(weights, p, source)
    mixed = weights.view(batch * heads, tokens, -1) @ value.reshape(batch * heads, -1, value.shape[-1])
    return mixed.view(batch, heads, tokens, -1).transpose(1, 2)
