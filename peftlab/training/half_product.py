"""Linear layers with frozen weights in the bf16 products of a CPU, without converting what does not change.

torch's autocast converts a frozen fp32 weight anew for every forward pass, and the same states once for query, key and
value each. Here a weight is converted once for a whole training, and states once for all layers that read them. LoRA on
such a layer is one step of the gradient, as in `lora_product`; its small matrices and their gradients stay in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peftlab.training.last_made import LastMade
from peftlab.training.lora_product import LowRank
from peftlab.training.masks import MaskSource, masked, row_blocks

_BLOCK_VALUES = 200_000
"""Values of a block: 0.4 MB in bf16, so that a block and its mask fit the second-level cache of a server's core."""


def in_half() -> bool:
    """Say whether products on the CPU are to be taken in bf16."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


class HalfStates(LastMade):
    """The states that were converted last: [rows, width] in bf16, contiguous and without gradient."""

    def __init__(self) -> None:
        super().__init__(_half)


def _half(x: Tensor) -> Tensor:
    return x.detach().reshape(-1, x.shape[-1]).to(torch.bfloat16).contiguous()


class HalfWeight:
    """A frozen linear layer's weight and bias in bf16, converted at their first use."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._pair: tuple[Tensor, Tensor | None] | None = None

    def pair(self) -> tuple[Tensor, Tensor | None]:
        """Return weight [d_out, d_in] and bias [d_out]."""
        if self._pair is None:
            bias = self._layer.bias
            weight = self._layer.weight.detach().to(torch.bfloat16)
            self._pair = (weight, None if bias is None else bias.detach().to(torch.bfloat16))
        return self._pair


def is_frozen(layer: Any) -> bool:
    """Say whether `layer` is a linear layer of torch in fp32 on a CPU, of which nothing is trained."""
    values = [value for value in (layer.weight, layer.bias) if value is not None] if type(layer) is nn.Linear else []
    return bool(values) and all(
        value.dtype == torch.float32 and value.device.type == "cpu" and not value.requires_grad for value in values
    )


class _FrozenLinear(torch.autograd.Function):
    """W x + b; the gradient is that of x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, half: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG004
        """Return [rows, d_out] in bf16; `half` is `x` [rows, d_in] in bf16."""
        ctx.save_for_backward(weight)
        return nn.functional.linear(half, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of x."""
        (weight,) = ctx.saved_tensors
        return gradients[0].contiguous() @ weight, None, None, None


def frozen_linear(frozen: HalfWeight, x: Tensor, states: HalfStates) -> Tensor:
    """Return the output of the frozen layer for `x` [..., d_in], in bf16."""
    rows = x.reshape(-1, x.shape[-1])
    y: Tensor = _FrozenLinear.apply(rows, states.of(x), *frozen.pair())  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], y.shape[-1])


class _HalfLoraLinear(torch.autograd.Function):
    """W x + b + s B A d(x) in bf16; W and b are frozen, A and B in fp32."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # noqa: ARG004 its gradient is what backward returns first
        half: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        kept: Tensor | None,
        scale: float,
    ) -> Tensor:
        """Return [rows, d_out]. half: [rows, d_in]; a: [r, d_in]; b: [d_out, r]; `scale` and `kept` as in fp32."""
        a, b = a.to(torch.bfloat16), (b * scale).to(torch.bfloat16)
        inner = half.new_empty(len(half), len(a))
        if kept is None:
            torch.mm(half, a.t(), out=inner)
        else:
            for rows in row_blocks(half, _BLOCK_VALUES):
                torch.mm(masked(half[rows], kept[rows]), a.t(), out=inner[rows])
        y = nn.functional.linear(half, weight, bias)
        y.addmm_(inner, b.t())
        ctx.save_for_backward(half, inner, weight, a, b, kept)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None, Tensor, Tensor, None, None]:
        """Return the gradients of x, a and b."""
        half, inner, weight, a, b, kept = ctx.saved_tensors
        outer = gradients[0].contiguous()
        inner_gradient = outer @ b
        b_gradient = (inner.t() @ outer).float().mul_(ctx.scale).t().contiguous()
        if kept is None:
            a_gradient, x_gradient = (inner_gradient.t() @ half).float(), None
            if ctx.needs_input_grad[0]:
                x_gradient = (outer @ weight).addmm_(inner_gradient, a)
            return x_gradient, None, None, None, a_gradient, b_gradient, None, None
        a_gradient = torch.zeros(a.shape)
        x_gradient = torch.empty_like(half) if ctx.needs_input_grad[0] else None
        for rows in row_blocks(half, _BLOCK_VALUES):
            part = inner_gradient[rows]
            a_gradient += part.t() @ masked(half[rows], kept[rows])
            if x_gradient is not None:
                x_gradient[rows] = masked(part @ a, kept[rows])
        if x_gradient is not None:
            x_gradient.addmm_(outer, weight)
        return x_gradient, None, None, None, a_gradient, b_gradient, None, None


def half_lora_linear(update: LowRank, frozen: HalfWeight, x: Tensor, states: HalfStates, source: MaskSource) -> Tensor:
    """Return the output of the frozen layer with its `update` for `x` [..., d_in], in bf16."""
    half = states.of(x)
    y: Tensor = _HalfLoraLinear.apply(  # type: ignore[no-untyped-call]
        x.reshape(-1, x.shape[-1]),
        half,
        *frozen.pair(),
        update.a,
        update.b,
        source.kept(half.shape, update.dropout) if update.dropout > 0 else None,
        update.scale / (1.0 - update.dropout),
    )
    return y.view(*x.shape[:-1], y.shape[-1])
