"""Dropout masks that cost less than the products around them, on CPUs.

torch draws one uniform number a value with a serial generator: about 11 ns a value on one 2-core machine, which was a
quarter of a LoRA step. Here a value takes one random byte: it is dropped where the byte is below a threshold that is
drawn for every 1,024 values, floor(256 p) or one more, so that a value is dropped with probability p exactly. Two
values under one threshold are correlated by at most 1 / (4 * 256^2 p (1 - p)), 4e-5 at p = 0.1; others are independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftlab.training.compiled import kernels

_BLOCK = 1024
_MOST_THREADS_OF_NUMPY = 4
"""Up to so many threads numpy's product with a mask, on one of them, is not slower than torch's on all of them."""


class MaskSource:
    """Draws masks from a generator that takes its seed from torch's: torch's state is all that a checkpoint needs.

    `restart` before every forward pass: its masks follow from that seed and the order in which they are drawn.
    """

    def __init__(self) -> None:
        self._bits: np.random.SFC64 | None = None

    def restart(self) -> None:
        """Take a new seed from torch's CPU generator."""
        self._bits = np.random.SFC64(int(torch.randint(2**63 - 1, ())))

    @property
    def state(self) -> Any:
        """What the next masks follow from; set it to draw the masks that were drawn from there once more."""
        return self._generator().state

    @state.setter
    def state(self, state: Any) -> None:
        self._generator().state = state

    def _generator(self) -> Any:
        if self._bits is None:
            self.restart()
        return self._bits

    def kept(self, shape: torch.Size, p: float) -> Tensor:
        """Return a boolean mask [shape], on CPU: each value False with probability `p`, which is below 255/256."""
        bits = self._generator()
        size = math.prod(shape)
        blocks = -(-size // _BLOCK)
        low = math.floor(256 * p)
        # The first words decide the thresholds: a share of 256 p - low of them is one higher.
        higher_share = math.floor((256 * p - low) * 2.0**64)
        compiled = kernels()
        if compiled is not None:
            flags = torch.empty(blocks * _BLOCK, dtype=torch.bool)
            compiled.draw(bits, blocks, low, higher_share, flags)
            return flags[:size].view(shape)
        words: NDArray[np.uint64] = bits.random_raw(blocks + blocks * (_BLOCK // 8))
        higher = words[:blocks] < np.uint64(higher_share)
        thresholds = (low + higher).astype(np.uint8)
        kept = words[blocks:].view(np.uint8).reshape(blocks, _BLOCK) >= thresholds[:, None]
        return torch.from_numpy(kept.reshape(-1)[:size]).view(shape)


def as_numbers(kept: Tensor, target: Tensor) -> Tensor:
    """Write `kept` as 0 and 1 into `target`, fp32, contiguous and of the same shape, and return it."""
    np.copyto(target.numpy(), kept.numpy())  # three times as fast as torch's conversion
    return target


def row_blocks(values: Tensor, most: int) -> Iterator[slice]:
    """Yield slices that go through the rows of `values` [rows, width], each of about `most` values, a row at least."""
    height = max(1, most // values.shape[1])
    for start in range(0, len(values), height):
        yield slice(start, min(start + height, len(values)))


def masked(values: Tensor, kept: Tensor, scale: float = 1.0) -> Tensor:
    """Return `scale` times `values`, 0 where `kept` is False, as a new tensor.

    Compiled or in bf16 that holds of infinite values too.
    """
    compiled = kernels()
    if compiled is not None and values.dtype == torch.float32:
        return compiled.masked(values.detach().contiguous(), kept, scale)
    product = _masked(values, kept)
    return product if scale == 1.0 else product.mul_(scale)


def _masked(values: Tensor, kept: Tensor) -> Tensor:
    if torch.get_num_threads() > _MOST_THREADS_OF_NUMPY:
        return values * kept
    if values.dtype == torch.bfloat16:  # as bits: ten times as fast as torch's product with a mask
        bits = values.detach().contiguous().view(torch.int16).numpy()
        return torch.from_numpy(np.multiply(bits, kept.numpy())).view(torch.bfloat16)
    if values.dtype == torch.float32:
        with np.errstate(all="ignore"):  # infinite values are for the loop to find, as after torch's own product
            return torch.from_numpy(np.multiply(values.detach().contiguous().numpy(), kept.numpy()))
    return values * kept


class _Dropout(torch.autograd.Function):
    """Dropout with a given mask: y = x * kept / (1 - p), and the same for the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kept: Tensor, p: float) -> Tensor:
        """Return dropped values, of the shape and type of `values`."""
        ctx.save_for_backward(kept)
        ctx.scale = 1.0 / (1.0 - p)
        return masked(values, kept, ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of `values`."""
        (kept,) = ctx.saved_tensors
        return masked(gradients[0], kept, ctx.scale), None, None


def dropout(values: Tensor, p: float, source: MaskSource) -> Tensor:
    """Return `values`, any floating-point tensor on a CPU, with dropout `p` by a mask of `source`."""
    if p >= 255 / 256:
        return torch.nn.functional.dropout(values, p, training=True)
    dropped: Tensor = _Dropout.apply(values, source.kept(values.shape, p), p)  # type: ignore[no-untyped-call]
    return dropped
