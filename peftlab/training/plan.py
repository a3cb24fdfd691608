"""The steps of a run, known before the first one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from peftlab.recipe.pretraining import HeldOut
from peftlab.recipe.records import Evaluation, Train


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
