"""The forward passes that an optimizer step takes, on which its memory depends, and little of its time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.encoders.shape import inner_width

if TYPE_CHECKING:
    from torch import nn

    from peftlab.training.placement import Placement
    from peftlab.training.plan import Plan

CPU_TOKENS = 1024
"""Padded tokens that a forward pass may have for each thread of a CPU, where the recipe leaves it open: more at a time
take more memory and save 3 to 10 % of the time (`benchmarks/speed/passes.py`)."""
BF16_TIMES = 4
"""As many times that in bf16: its products take a fraction of the time, and what a pass costs beside them the same."""
_HELD_OF_TRAINED = 16
"""Bytes of a trained parameter: its weight, its gradient, and what AdamW knows of it, in fp32."""


def tokens_of_a_pass(plan: Plan, place: Placement, model: nn.Module, *, together: bool = False) -> int | None:
    """Return the most tokens of a forward pass over all processes; None where only its rows are bounded.

    Where the recipe leaves it open, and on a CPU, a pass may have so many that what it keeps for the backward pass
    takes about the memory of weights, gradients and optimizer state, and CPU_TOKENS in any case: with few trained
    parameters it is the passes that memory goes into. `together`: the rows of a batch must not be parted.
    """
    if plan.most_tokens is not None or together or place.device.type != "cpu":
        return plan.most_tokens
    least = CPU_TOKENS * place.threads * (BF16_TIMES if place.precision == "bf16" else 1)
    kept = _kept_of_a_token(model)
    return place.world * max(least, _held_bytes(model) // kept if kept else 0)


def _held_bytes(model: nn.Module) -> int:
    """Return the bytes of weights, gradients and optimizer state."""
    parameters = list(model.parameters())
    frozen = sum(one.numel() * one.element_size() for one in parameters if not one.requires_grad)
    return frozen + _HELD_OF_TRAINED * sum(one.numel() for one in parameters if one.requires_grad)


def _kept_of_a_token(model: Any) -> int:
    """Return about what the layers keep of a token for the backward pass, in bytes of fp32; 0 where sizes are unknown.

    What attention and its projections read and give, what the two norms read, and the feed-forward part before and
    after its activation.
    """
    config = getattr(model, "config", None)
    hidden, layers = (getattr(config, name, None) for name in ("hidden_size", "num_hidden_layers"))
    if hidden is None or layers is None:
        return 0
    return int(4 * layers * (8 * hidden + 2 * inner_width(config)))


def forward_passes(lengths: NDArray[np.int64], rows: int, tokens: int | None) -> list[slice]:
    """Return the rows of each forward pass, in order: at most `rows`, and at most `tokens` with padding, but one row.

    `lengths`: tokens of each row of one optimizer step, [rows]. There are as few passes as can be, and where that
    allows it they are of equal size.
    """
    filled = list(_filled(lengths, rows, tokens))
    level = list(_filled(lengths, -(-len(lengths) // len(filled)), tokens))
    return level if len(level) == len(filled) else filled


def _filled(lengths: NDArray[np.int64], rows: int, tokens: int | None) -> Iterator[slice]:
    """Yield passes that take as many of the rows that are left as they may."""
    start = longest = 0
    for place, length in enumerate(lengths.tolist()):
        widest = max(longest, length)
        full = place - start == rows or (tokens is not None and (place - start + 1) * widest > tokens)
        if full and place > start:
            yield slice(start, place)
            start, widest = place, length
        longest = widest
    yield slice(start, len(lengths))
