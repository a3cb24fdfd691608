"""A linear layer with LoRA as one step of the gradient: what peft computes, in fewer passes over memory.

y = W x + b + s B A d(x), with dropout d (Hu et al. 2021, arXiv 2106.09685, equation 3); in AdaLoRA, A is P times the
singular values (Zhang et al. 2023, arXiv 2303.10512, equation 3). Written by itself the update
takes a masked copy of x, two products, a scaling and a sum over the layer's output. Here the large products add
to what the small ones have written, s and the scale of dropout act on r values a token, and d(x) is made in blocks
that stay in the processor's cache, once in each direction: only x, its mask and A d(x) are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peftlab.training.compiled import LANES, Kernels, kernels
from peftlab.training.masks import MaskSource, as_numbers, row_blocks

_BLOCK_VALUES = 100_000
"""Values of a block: 0.4 MB in fp32, so that a block and its mask fit the second-level cache of a server's core."""


class _LoraLinear(torch.autograd.Function):
    """Values and gradients of the layer; W and b are frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        kept: Tensor | None,
        scale: float,
    ) -> Tensor:
        """Return [rows, d_out]. x: [rows, d_in]; a: [r, d_in]; b: [d_out, r]; `scale` includes dropout's.

        `kept` [rows, d_in] is False where a value of x is dropped on its way to A; None where none is.
        """
        compiled = _compiled(x, weight, a)
        ctx.scale = scale
        if compiled is not None:
            a, wide = a.contiguous(), (b * scale).t().contiguous()
            inner, y = x.new_empty(len(a), len(x)), x.new_empty(len(x), len(weight))
            compiled.narrow(x, kept, a, inner)
            compiled.widen(inner, wide, bias, y)
            y.addmm_(x, weight.t())
            ctx.save_for_backward(x, inner, weight, a, b, kept)
            return y
        rank = len(a)
        # Few rows by many columns: BLAS is up to three times as fast that way round. A row of ones brings the bias in
        # with the update: the output is written once, then added to.
        inner = x.new_ones(rank + 1, len(x))
        if kept is None:
            torch.mm(a, x.t(), out=inner[:rank])
        else:
            for rows, mask in _masks(x, kept):
                torch.mm(a, mask.mul_(x[rows]).t(), out=inner[:rank, rows])
        last = bias if bias is not None else weight.new_zeros(len(weight))
        y = inner.t() @ torch.cat([(b * scale).t(), last.unsqueeze(0)])
        y.addmm_(x, weight.t())
        ctx.save_for_backward(x, inner[:rank], weight, a, b, kept)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None, None]:
        """Return the gradients of x, a and b."""
        x, inner, weight, a, b, kept = ctx.saved_tensors
        outer = gradients[0].contiguous()
        compiled = _compiled(x, weight, a)
        if compiled is not None:
            wide, x_asked = (b * ctx.scale).t().contiguous(), ctx.needs_input_grad[0]
            wide_gradient, a_gradient, x_gradient = compiled.lora_back(
                outer, wide, inner, x, kept, a.contiguous(), x_asked=x_asked
            )
            if x_gradient is not None:
                x_gradient.addmm_(outer, weight)
            return x_gradient, None, None, a_gradient, wide_gradient.t().mul(ctx.scale), None, None
        inner_gradient = (b * ctx.scale).t() @ outer.t()
        b_gradient = (inner @ outer).t().mul(ctx.scale).contiguous()
        if kept is None:
            a_gradient, x_gradient = inner_gradient @ x, None
            if ctx.needs_input_grad[0]:
                x_gradient = (inner_gradient.t() @ a).addmm_(outer, weight)
            return x_gradient, None, None, a_gradient, b_gradient, None, None
        a_gradient = torch.zeros_like(a)
        x_gradient = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        for rows, mask in _masks(x, kept):
            part = inner_gradient[:, rows]
            if x_gradient is not None:
                torch.mm(part.t(), a, out=x_gradient[rows]).mul_(mask)
            a_gradient.addmm_(part, mask.mul_(x[rows]))
        if x_gradient is not None:
            x_gradient.addmm_(outer, weight)
        return x_gradient, None, None, a_gradient, b_gradient, None, None


def _compiled(x: Tensor, weight: Tensor, a: Tensor) -> Kernels | None:
    """Return the compiled products where they can take these; None elsewhere."""
    widths = all(size % LANES == 0 for size in weight.shape)
    return kernels() if widths and x.dtype == a.dtype == torch.float32 else None


def _masks(values: Tensor, kept: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of rows, each with `kept` of these rows as 0 and 1: a tensor to write into, until the next block."""
    numbers: Tensor | None = None
    for rows in row_blocks(values, _BLOCK_VALUES):
        numbers = torch.empty_like(values[rows]) if numbers is None else numbers
        yield rows, as_numbers(kept[rows], numbers[: rows.stop - rows.start])


@dataclass(frozen=True)
class LowRank:
    """The update of a linear layer: s B A d(x). a: [r, d_in]; b: [d_out, r]; `dropout`: that of d."""

    a: Tensor
    b: Tensor
    scale: float
    dropout: float


def low_rank(module: Any) -> LowRank | None:
    """Return the update of `module` where it is a linear layer with one plain LoRA or AdaLoRA of peft, else None.

    It must be trained, in fp32, over a frozen fp32 weight on a CPU.
    """
    if not _is_plain(module):
        return None
    (name,) = module.active_adapters
    values = module.lora_E[name] if hasattr(module, "lora_E") else None
    a, b = (one[name] if values is not None else one[name].weight for one in (module.lora_A, module.lora_B))
    trained = [value for value in (a, b, values) if value is not None]
    frozen = [value for value in (module.base_layer.weight, module.base_layer.bias) if value is not None]
    if not all(value.requires_grad for value in trained):
        return None
    if not all(value.dtype == torch.float32 and value.device.type == "cpu" for value in (*trained, *frozen)):
        return None
    p = float(getattr(module.lora_dropout[name], "p", 0.0))  # peft has an identity in its place where there is none
    if values is None:
        return LowRank(a, b, module.scaling[name], p)
    return LowRank(a * values, b, module.scaling[name] / (float(module.ranknum[name]) + 1e-5), p)


def _is_plain(module: Any) -> bool:
    """Say whether `module` is peft's linear layer with one active LoRA or AdaLoRA, of no variant and without a bias."""
    from peft.tuners.adalora import SVDLinear
    from peft.tuners.lora import Linear

    if type(module) not in (Linear, SVDLinear) or type(module.base_layer) is not nn.Linear:
        return False
    names = module.active_adapters
    if module.disable_adapters or module.merged or len(names) != 1 or names[0] not in module.lora_A:
        return False
    if module.fan_in_fan_out or names[0] in getattr(module, "lora_variant", ()):
        return False
    return getattr(module.lora_B[names[0]], "bias", None) is None


def lora_linear(module: Any, update: LowRank, x: Tensor, source: MaskSource) -> Tensor:
    """Return the output of `module` with its `update` for `x` [..., d_in] in fp32, with a mask drawn from `source`."""
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    kept = source.kept(rows.shape, update.dropout) if update.dropout > 0 else None
    base, scale = module.base_layer, update.scale / (1.0 - update.dropout)
    y: Tensor = _LoraLinear.apply(rows, base.weight, base.bias, update.a, update.b, kept, scale)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], y.shape[-1])
