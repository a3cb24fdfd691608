"""Paired tests of two trainings, against scipy and against enumeration of every outcome."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from peftlab.evaluation.paired import holm, mcnemar, paired_bootstrap


def rows(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    second = np.repeat([True, False, True, False], [both, only_first, only_second, neither])
    return first, second


@pytest.mark.parametrize(("only_first", "only_second"), [(3, 9), (9, 3), (5, 5), (0, 6), (40, 71)])
def test_mcnemar_is_the_binomial_test_on_rows_that_differ(only_first: int, only_second: int) -> None:
    found = mcnemar(*rows(50, only_first, only_second, 4))
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.exact == pytest.approx(stats.binomtest(only_first, only_first + only_second).pvalue)
    assert found.mid_p < found.exact


def test_the_mid_p_value_of_every_small_table_counts_the_outcome_seen_half() -> None:
    for differ in range(1, 8):
        outcomes = [sum(signs) for signs in itertools.product((0, 1), repeat=differ)]
        for seen in range(differ + 1):
            fewer = min(seen, differ - seen)
            tail = sum((one < fewer) + 0.5 * (one == fewer) for one in outcomes) / len(outcomes)
            expected = 2 * tail if 2 * seen != differ else 1 - outcomes.count(seen) / len(outcomes) / 2
            assert mcnemar(*rows(2, seen, differ - seen, 0)).mid_p == pytest.approx(expected)


def test_models_that_never_differ_have_p_value_one() -> None:
    found = mcnemar(*rows(5, 0, 0, 2))
    assert (found.exact, found.mid_p) == (1.0, 1.0)


def test_the_paired_bootstrap_agrees_with_scipys() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random(400) < 0.9, generator.random(400) < 0.85
    ours = paired_bootstrap(first, second, resamples=4000)
    theirs = stats.bootstrap(
        (first.astype(float) - second,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.value == pytest.approx(first.mean() - second.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_holm_adjusts_as_its_paper_says_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.5]) == (1.0, 1.0)
    assert holm([0.02]) == (0.02,)
    assert holm([]) == ()
