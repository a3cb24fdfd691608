"""Steps, warm-up and learning rates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftlab.recipe.records import Evaluation, Train
from peftlab.training.placement import Placement
from peftlab.training.plan import (
    BF16_TIMES,
    CPU_TOKENS,
    forward_passes,
    learning_rate_factor,
    make_plan,
    tokens_of_a_pass,
)


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


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    rows=st.integers(1, 70),
    tokens=st.one_of(st.none(), st.integers(1, 400)),
)
def test_forward_passes_hold_every_row_once_and_no_more_than_asked(
    lengths: list[int], rows: int, tokens: int | None
) -> None:
    """Rows keep their order; a pass above the tokens holds one row; there are as few passes as there can be."""
    passes = forward_passes(np.asarray(lengths), rows, tokens)
    parts = [lengths[one] for one in passes]

    assert [length for part in parts for length in part] == lengths
    assert all(0 < len(part) <= rows for part in parts)
    if tokens is not None:
        assert all(len(part) == 1 or len(part) * max(part) <= tokens for part in parts)
    fewest, part = 0, list[int]()
    for length in lengths:
        part.append(length)
        if len(part) == 1 or len(part) > rows or (tokens is not None and len(part) * max(part) > tokens):
            fewest, part = fewest + 1, [length]
    assert len(parts) == fewest


def test_passes_are_of_equal_size_where_their_number_allows_it() -> None:
    """32 texts of 100 tokens, ten of which fit 1,024 tokens, are taken 8 by 8; texts of unlike lengths as they fit."""
    passes = forward_passes(np.full(32, 100), 32, 1024)
    unlike = forward_passes(np.asarray([10, 10, 10, 100]), 32, 100)

    assert [one.stop - one.start for one in passes] == [8, 8, 8, 8]
    assert [one.stop - one.start for one in unlike] == [3, 1]


def test_a_cpu_bounds_the_tokens_of_a_pass_by_itself() -> None:
    """What the recipe says holds everywhere; rows that belong together, and another device's, are not parted."""
    left_open, said = (make_plan(Train(max_tokens=tokens), Evaluation(), rows=36) for tokens in ("auto", 64))
    cpu, cuda = (Placement(0, 2, torch.device(name), 3, "fp32") for name in ("cpu", "cuda"))

    assert tokens_of_a_pass(left_open, cpu) == 2 * 3 * CPU_TOKENS
    assert tokens_of_a_pass(left_open, replace(cpu, precision="bf16")) == 2 * 3 * BF16_TIMES * CPU_TOKENS
    assert tokens_of_a_pass(left_open, cpu, together=True) is None
    assert tokens_of_a_pass(left_open, cuda) is None
    assert tokens_of_a_pass(said, cpu) == tokens_of_a_pass(said, cuda) == 64
