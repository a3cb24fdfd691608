"""Confidence intervals against scipy and the equations they solve, and their coverage in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from peftlab.evaluation.intervals import (
    Interval,
    bootstrap,
    bootstrap_weighted,
    on_logit_scale,
    percentiles,
    rows_needed,
    verdict,
    wilson,
)


@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_wilson_agrees_with_scipy(counts: tuple[int, int], confidence: float) -> None:
    successes, n = counts
    theirs = stats.binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    interval = wilson(successes, n, confidence)
    assert interval.value == successes / n
    assert interval.low == pytest.approx(theirs.low, abs=1e-12)
    assert interval.high == pytest.approx(theirs.high, abs=1e-12)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_wilson_covers_the_true_proportion_about_95_percent_of_the_time() -> None:
    for n, share in ((200, 0.93), (1000, 0.5)):
        chances = stats.binom.pmf(np.arange(n + 1), n, share)
        covered = sum(chance for k, chance in enumerate(chances) if wilson(k, n).low <= share <= wilson(k, n).high)
        assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_counts_that_are_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        wilson(successes, n)


@pytest.mark.parametrize(("half_width", "expected"), [(0.01, 0.93), (0.02, 0.5), (0.05, 1.0), (0.2, 0.0), (0.4, 0.5)])
def test_rows_needed_is_the_least_number_of_rows_that_is_enough(half_width: float, expected: float) -> None:
    def reach(n: int) -> float:
        # The ends are the shares p that lie 1.96 of their own standard errors from the one expected.
        z2 = stats.norm.ppf(0.975) ** 2 / n
        low, high = np.sort(np.roots([1 + z2, -2 * expected - z2, expected**2]).real)
        return float(high - low) / 2

    n = rows_needed(half_width, expected)
    assert reach(n) <= half_width
    assert n == 1 or reach(n - 1) > half_width


@pytest.mark.parametrize(("half_width", "expected"), [(0.0, 0.5), (0.5, 0.5), (0.1, 1.1)])
def test_rows_needed_refuses_what_no_number_of_rows_can_answer(half_width: float, expected: float) -> None:
    with pytest.raises(ValueError, match="half_width"):
        rows_needed(half_width, expected)


def test_bootstrap_is_the_same_for_the_same_seed_and_differs_for_another() -> None:
    sample = np.random.default_rng(0).normal(size=80)

    def mean(rows: np.ndarray) -> float:
        return float(sample[rows].mean())

    assert bootstrap(mean, 80, resamples=200, seed=3) == bootstrap(mean, 80, resamples=200, seed=3)
    assert bootstrap(mean, 80, resamples=200, seed=3) != bootstrap(mean, 80, resamples=200, seed=4)


def test_bootstrap_agrees_with_scipys_percentile_bootstrap() -> None:
    sample = np.random.default_rng(1).exponential(size=300)
    ours = bootstrap(lambda rows: float(sample[rows].mean()), 300, resamples=4000)
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    spread = theirs.high - theirs.low
    assert ours.value == sample.mean()
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.06 * spread)


def test_weights_and_indices_draw_the_same_resamples() -> None:
    sample = np.random.default_rng(2).normal(size=50)
    by_index = bootstrap(lambda rows: float(sample[rows].mean()), 50, resamples=120, seed=9)
    low, high = percentiles(bootstrap_weighted(lambda counts: counts @ sample / 50, 50, resamples=120, seed=9))
    assert (by_index.low, by_index.high) == (pytest.approx(float(low)), pytest.approx(float(high)))


def test_many_rows_are_drawn_in_chunks_without_changing_the_number_of_resamples() -> None:
    seen = bootstrap_weighted(lambda counts: counts.sum(axis=1), 3_000_000, resamples=3)
    assert seen.tolist() == [3_000_000] * 3


def test_bootstrap_covers_the_true_mean_about_95_percent_of_the_time() -> None:
    generator = np.random.default_rng(4)
    hits = 0
    for trial in range(300):
        sample = generator.normal(1.0, 2.0, size=100)
        low, high = percentiles(
            bootstrap_weighted(lambda counts, sample=sample: counts @ sample / 100, 100, resamples=300, seed=trial)
        )
        hits += low <= 1.0 <= high
    assert 0.90 <= hits / 300 <= 0.99


def test_a_statistic_that_is_never_defined_is_refused() -> None:
    with pytest.raises(ValueError, match="undefined"):
        bootstrap(lambda rows: float("nan") * rows[0], 5, resamples=10)


def test_the_logit_scale_keeps_an_interval_within_0_and_1_and_agrees_with_the_plain_one_in_the_middle() -> None:
    near_one = on_logit_scale(0.999, 0.01, 100)
    assert 0 < near_one.low < 0.999 < near_one.high < 1
    middle = on_logit_scale(0.5, 0.01, 100)
    assert (middle.low, middle.high) == (pytest.approx(0.5 - 0.0196, abs=5e-5), pytest.approx(0.5 + 0.0196, abs=5e-5))
    assert on_logit_scale(1.0, 0.0, 100) == Interval(1.0, 1.0, 1.0, 100)


def test_only_an_interval_on_one_side_of_the_target_decides() -> None:
    interval = Interval(0.93, 0.92, 0.94, 3000)
    assert verdict(interval, 0.92) == "reached"
    assert verdict(interval, 0.93) == "undecided"
    assert verdict(interval, 0.94) == "undecided"
    assert verdict(interval, 0.941) == "not_reached"
