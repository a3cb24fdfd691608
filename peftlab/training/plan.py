"""The steps of a run, known before the first one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peftlab.recipe.pretraining import HeldOut
from peftlab.recipe.records import Evaluation, Train

if TYPE_CHECKING:
    from peftlab.training.placement import Placement

CPU_TOKENS = 1024
"""Padded tokens of a forward pass for each thread of a CPU, where the recipe leaves it open: more at a time take more
memory and save 3 to 10 % of the time (`benchmarks/speed/passes.py`)."""
BF16_TIMES = 4
"""As many times that in bf16: its products take a fraction of the time, and what a pass costs beside them the same."""


@dataclass(frozen=True)
class Plan:
    """How many optimizer steps a run takes, and where in them it warms up and validates.

    `group_rows`: rows of one optimizer step over all processes. `micro_rows`: rows of one forward pass of these.
    `most_tokens`: of one forward pass over all processes, padding counted, where the recipe says it.
    """

    rows: int
    group_rows: int
    micro_rows: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    steps_per_evaluation: int
    most_tokens: int | None = None

    def validates_after(self, step: int) -> bool:
        """Say whether the model is validated after optimizer step `step` (counted from 1)."""
        return step % self.steps_per_evaluation == 0 or step == self.total_steps

    def epoch_of(self, step: int) -> float:
        """Return the passes over the rows that `step` optimizer steps make."""
        return step / self.steps_per_epoch


def make_plan(train: Train, evaluation: Evaluation | HeldOut, rows: int) -> Plan:
    """Return the plan for `rows` training rows."""
    group_rows = train.batch_size * train.accumulation
    steps_per_epoch = math.ceil(rows / group_rows)
    total = max(1, math.ceil(train.epochs * steps_per_epoch - 1e-9))
    total = total if train.max_steps is None else min(total, train.max_steps)
    return Plan(
        rows=rows,
        group_rows=group_rows,
        micro_rows=train.batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        warmup_steps=math.ceil(train.warmup * total - 1e-9),
        steps_per_evaluation=steps_per_epoch if evaluation.every == "epoch" else evaluation.every,
        most_tokens=None if train.max_tokens == "auto" else train.max_tokens,
    )


def tokens_of_a_pass(plan: Plan, place: Placement, *, together: bool = False) -> int | None:
    """Return the most tokens of a forward pass over all processes; None where only its rows are bounded.

    `together`: the rows of a batch must not be parted.
    """
    if plan.most_tokens is not None or together or place.device.type != "cpu":
        return plan.most_tokens
    own = CPU_TOKENS * (BF16_TIMES if place.precision == "bf16" else 1)
    return own * place.threads * place.world


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


def learning_rate_factor(step: int, plan: Plan, schedule: str) -> float:
    """Return the share of the peak learning rate at optimizer step `step`, counted from 0.

    Rises linearly to 1 at the last warm-up step; then `linear` falls to 0 after the last step, `cosine` along half a
    cosine (Loshchilov and Hutter 2017, equation 5 without restarts), `constant` stays.
    """
    if step < plan.warmup_steps:
        return (step + 1) / plan.warmup_steps
    if schedule == "constant":
        return 1.0
    done = (step - plan.warmup_steps) / max(1, plan.total_steps - plan.warmup_steps)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
