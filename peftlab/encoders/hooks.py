"""What a method may do beside the gradient. Most methods need nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Hooks:
    """Functions of one method on one model, each optional; `hooks(model, config, total_steps)` of its file makes them.

    `penalty()` is added once to the loss of each optimizer step, whatever the loss is, and never in evaluation.
    `after_step(step, updated)` follows each optimizer step, counted from 1, with the gradients of that step still in
    place, summed over processes, unscaled and clipped; `updated` is false where fp16 overflowed: the weights stayed and
    the gradients are not finite.
    `state()` is what a checkpoint must hold beside the trained weights, `restore(state)` puts it back.
    `settled_from` is the first step after which the model has the size that will be shipped: validations before it
    choose no best checkpoint and use up no patience.
    `finish()` removes what training has switched off, from the model with its best weights, and returns the rank of
    each adapted module by its name in the encoder.
    """

    penalty: Callable[[], Tensor] | None = None
    after_step: Callable[[int, bool], None] | None = None
    state: Callable[[], Mapping[str, Any]] | None = None
    restore: Callable[[Mapping[str, Any]], None] | None = None
    settled_from: int = 0
    finish: Callable[[], dict[str, int]] | None = None
