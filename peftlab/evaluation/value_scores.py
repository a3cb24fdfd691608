"""How near predicted numbers are to those of the rows: correlations and errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.intervals import Interval, bootstrap

METRICS = ("pearson", "spearman", "mse", "mae")
RESAMPLES = 1000

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class ValueScores:
    """Metrics of one split with their 95 % intervals, and what they depend on."""

    metrics: Mapping[str, Interval]
    facts: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: `metrics` and `facts` as in result.json."""
        return {
            "metrics": {name: interval.to_dict() for name, interval in self.metrics.items()},
            "facts": dict(self.facts),
        }


def point_metrics(predicted: Numbers, gold: Numbers) -> dict[str, float]:
    """Return METRICS without intervals: correlations by value and by rank, mean squared and mean absolute error.

    A correlation is 0 where one side does not vary, as it is then undefined.
    """
    from scipy.stats import rankdata

    errors = predicted - gold
    return {
        "pearson": _correlation(predicted, gold),
        "spearman": _correlation(rankdata(predicted), rankdata(gold)),
        "mse": float((errors**2).mean()),
        "mae": float(np.abs(errors).mean()),
    }


def score_values(predicted: Numbers, gold: Numbers, mean: float, *, seed: int = 0) -> ValueScores:
    """Return METRICS with 95 % percentile bootstrap intervals over rows; `mean`: of the training rows' numbers."""
    metrics = {
        name: bootstrap(
            lambda rows, name=name: point_metrics(predicted[rows], gold[rows])[name],  # type: ignore[misc]
            len(gold),
            resamples=RESAMPLES,
            seed=seed,
        )
        for name in METRICS
    }
    baseline = point_metrics(np.full_like(gold, mean), gold)
    facts = {
        "baseline": f"the mean of the training rows, {mean:.4f}, for every row: mse {baseline['mse']:.4f}, mae "
        f"{baseline['mae']:.4f}",
        "intervals": f"percentile bootstrap over rows, {RESAMPLES:,} resamples",
    }
    return ValueScores(MappingProxyType(metrics), MappingProxyType(facts))


def _correlation(one: Numbers, other: Numbers) -> float:
    left, right = one - one.mean(), other - other.mean()
    below = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / below if below > 0 else 0.0
