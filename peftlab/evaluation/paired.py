"""Two trainings on the same test rows: McNemar's test, and the paired bootstrap of a difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.intervals import Interval, bootstrap_weighted, percentiles


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two models has right, and the two-sided p values of "as many either way"."""

    only_first: int
    only_second: int
    exact: float
    mid_p: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Return McNemar's test (1947) of two models on the same rows, shape [rows] each, whether each row was right.

    `exact` is the binomial test on the rows where they differ; `mid_p` counts the outcome seen half, which holds the
    level nearly as well and finds more (Fagerland, Lydersen and Laake 2013).
    """
    from scipy.stats import binom

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first == only_second == 0:
        return McNemar(0, 0, 1.0, 1.0)
    differ, fewer = only_first + only_second, min(only_first, only_second)
    exact = min(1.0, 2 * float(binom.cdf(fewer, differ, 0.5)))
    seen = float(binom.pmf(fewer, differ, 0.5))
    # Where both are equal the outcome seen is in both tails, half of it in each.
    mid_p = 1 - seen / 2 if only_first == only_second else 2 * float(binom.cdf(fewer, differ, 0.5)) - seen
    return McNemar(only_first, only_second, exact, mid_p)


def paired_bootstrap(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Return mean(first) - mean(second) with its percentile interval from resampling rows, both models' together.

    `first` and `second` hold a score a row, shape [rows]: right or wrong, a loss, or a mean over seeds.
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    rows = len(difference)
    values = bootstrap_weighted(lambda counts: counts @ difference / rows, rows, resamples=resamples, seed=seed)
    low, high = percentiles(values, confidence)
    return Interval(float(difference.mean()), float(low), float(high), rows)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p values adjusted so that the chance of any false claim stays below the level (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return tuple(adjusted)
