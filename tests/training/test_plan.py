"""Steps, warm-up and learning rates."""

from __future__ import annotations

import pytest

from peftlab.recipe.records import Evaluation, Train
from peftlab.training.plan import learning_rate_factor, make_plan


def test_the_last_short_group_is_a_step() -> None:
    """36 rows in groups of 8 are 5 steps an epoch."""
    plan = make_plan(Train(epochs=2, batch_size=4, accumulation=2), Evaluation(), rows=36)

    assert (plan.group_rows, plan.steps_per_epoch, plan.total_steps) == (8, 5, 10)
    assert [step for step in range(1, 11) if plan.validates_after(step)] == [5, 10]


def test_part_of_an_epoch_and_max_steps() -> None:
    """Half an epoch is rounded up to whole steps; max_steps cuts what epochs ask for."""
    assert make_plan(Train(epochs=0.5, batch_size=8), Evaluation(), rows=36).total_steps == 3
    assert make_plan(Train(epochs=5, batch_size=8, max_steps=7), Evaluation(), rows=36).total_steps == 7


def test_validation_every_n_steps_always_includes_the_last() -> None:
    """A run that ends between two validations is validated at its end."""
    plan = make_plan(Train(epochs=1, batch_size=8), Evaluation(every=2), rows=36)

    assert [step for step in range(1, 6) if plan.validates_after(step)] == [2, 4, 5]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_learning_rate_factors(schedule: str, expected: list[float]) -> None:
    """Two warm-up steps of six, then the decay."""
    plan = make_plan(Train(epochs=1, batch_size=6, warmup=0.3), Evaluation(), rows=36)

    assert plan.warmup_steps == 2
    assert [learning_rate_factor(step, plan, schedule) for step in range(6)] == pytest.approx(expected)


def test_without_warm_up_the_first_step_takes_the_whole_rate() -> None:
    """`warmup = 0` is no division by zero."""
    plan = make_plan(Train(epochs=1, batch_size=6, warmup=0.0), Evaluation(), rows=36)

    assert learning_rate_factor(0, plan, "linear") == 1.0
