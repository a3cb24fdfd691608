"""Confidence intervals: Wilson for proportions, bootstrap over rows for everything else.

Rows are taken to be independent draws from the population that the test split stands for. An interval says nothing of
the spread between training seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["reached", "not_reached", "undecided"]

# Row draws held at once by the bootstrap: 32 MB of int64.
_DRAWS_HELD = 2**22


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval (95 % unless asked otherwise) and its number of rows."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        """Return the four fields as plain JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the score interval of a proportion (Wilson 1927), without continuity correction.

    Unlike the normal approximation it stays within [0, 1] and keeps a width where every row or none succeeds.
    Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n > 0; got {successes} of {n}")
    share = successes / n
    return Interval(share, *on_wilson_scale(share, n, _z(confidence)), n)


def rows_needed(half_width: float, expected: float, confidence: float = 0.95) -> int:
    """Return the least number of rows at which the Wilson interval around `expected` reaches at most ±`half_width`.

    Half the interval's whole width is compared, since the Wilson interval is not symmetric around the estimate.
    `expected` is the proportion foreseen. Raises ValueError unless 0 < half_width < 0.5 and 0 <= expected <= 1.
    """
    if not 0 < half_width < 0.5 or not 0 <= expected <= 1:
        raise ValueError(f"needs 0 < half_width < 0.5 and 0 <= expected <= 1; got {half_width} and {expected}")
    too_few, enough = 0, 1
    while _wilson_centre(expected, enough, confidence)[1] > half_width:
        too_few, enough = enough, enough * 2
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if _wilson_centre(expected, middle, confidence)[1] > half_width:
            too_few = middle
        else:
            enough = middle
    return enough


def verdict(interval: Interval, asked: float) -> Verdict:
    """Say whether a higher-is-better metric reaches `asked`: only an interval wholly on one side decides."""
    if interval.low >= asked:
        return "reached"
    return "not_reached" if interval.high < asked else "undecided"


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    n: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Return the percentile bootstrap interval over rows (Efron and Tibshirani 1993, chapter 13).

    `statistic` gets row indices, shape [n], and returns the statistic on those rows; its value on all rows in order is
    the estimate. The same seed gives the same interval. `bootstrap_weighted` is faster where the statistic can be
    written with row weights. Resamples on which the statistic is NaN are left out; ValueError where all are.
    """
    values = [statistic(draws) for chunk in _row_draws(n, resamples, seed) for draws in chunk]
    low, high = percentiles(np.array(values), confidence)
    return Interval(float(statistic(np.arange(n))), float(low), float(high), n)


def bootstrap_weighted(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], n: int, *, resamples: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """Return `statistic` on bootstrap resamples of n rows, for statistics that are functions of row weights.

    `statistic` gets how often each row was drawn, shape [k, n], and returns shape [k, ...]; the answer has shape
    [resamples, ...]. The draws are those of `bootstrap` with the same seed.
    """
    return np.concatenate([statistic(_counts(chunk, n)) for chunk in _row_draws(n, resamples, seed)])


def percentiles(values: NDArray[np.float64], confidence: float = 0.95) -> NDArray[np.float64]:
    """Return the ends that hold the middle `confidence` of `values` along axis 0, shape [2, ...]; NaN is left out."""
    if np.isnan(values).all(axis=0).any():
        raise ValueError("the statistic is undefined (NaN) on every resample")
    tail = (1 - confidence) / 2
    ends: NDArray[np.float64] = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return ends


def on_logit_scale(value: float, standard_error: float, n: int, confidence: float = 0.95) -> Interval:
    """Return the normal interval of a statistic in [0, 1], taken on the logit scale so that it stays within [0, 1].

    The delta method gives the standard error of logit(value) as standard_error / (value (1 - value)). At 0 and 1 the
    interval has no width, as a bootstrap's would have none.
    """
    if value <= 0 or value >= 1:
        return Interval(value, value, value, n)
    centre = math.log(value / (1 - value))
    reach = _z(confidence) * standard_error / (value * (1 - value))
    return Interval(value, _logistic(centre - reach), _logistic(centre + reach), n)


def on_wilson_scale(share: float, rows: float, reach: float) -> tuple[float, float]:
    """Return the ends of the score interval of a proportion that is known as from `rows` rows; `reach`: a quantile."""
    centre, half_width = _score_centre(share, reach**2 / rows)
    low = 0.0 if share == 0 else max(0.0, centre - half_width)
    return low, 1.0 if share == 1 else min(1.0, centre + half_width)


def _wilson_centre(share: float, n: int, confidence: float) -> tuple[float, float]:
    return _score_centre(share, _z(confidence) ** 2 / n)


def _score_centre(share: float, z2_per_row: float) -> tuple[float, float]:
    spread = math.sqrt(share * (1 - share) * z2_per_row + z2_per_row**2 / 4)
    return (share + z2_per_row / 2) / (1 + z2_per_row), spread / (1 + z2_per_row)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _row_draws(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield row indices drawn with replacement, shape [k, n], until there are `resamples` in all."""
    if n <= 0 or resamples <= 0:
        raise ValueError(f"a bootstrap needs rows and resamples; got {n} and {resamples}")
    generator = np.random.default_rng(seed)
    step = max(1, _DRAWS_HELD // n)
    for start in range(0, resamples, step):
        yield generator.integers(0, n, size=(min(step, resamples - start), n))


def _counts(draws: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    offsets = np.arange(len(draws))[:, None] * n
    flat = np.bincount((draws + offsets).ravel(), minlength=len(draws) * n)
    return flat.reshape(len(draws), n).astype(np.float64)
