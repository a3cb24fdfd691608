"""Accuracy over training seeds and test rows at once: its interval, and that of the difference of two methods.

Both are random here: which rows are in the test split, and which seed a training had. Every seed meets every row, so
the runs of a method form a crossed table, as readers x cases do in studies of medical imaging, and the variance of the
mean is taken apart as there (Obuchowski and Rockette 1995; Gallas 2006):

    variance = (between the means of the seeds) / seeds  +  (what rows do to all seeds alike) / rows

The first term, taken as it is observed, holds the noise of single seeds on single rows too, so the second leaves it
out: together they are unbiased, and nothing is counted twice. Each method has its own first term, since trainings under
the same seed number share nothing that matters. Quantiles are Student's, with degrees of freedom after Satterthwaite
(1946), in the form that Hillis (2007) found to hold with few readers. Resampling seeds does not work with three of
them: three values resampled have a variance that is too small by a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.intervals import Interval, on_wilson_scale

Correct = NDArray[np.bool_]
"""Whether each row was predicted rightly, shape [seeds, rows]; rows in the same order for every seed and method."""


@dataclass(frozen=True)
class Estimated:
    """A mean or a difference of means with its standard error.

    `rows_variance`: the part of the variance that more test rows would shrink, times `rows`; `seeds_variance`: the part
    that only more seeds would. `standard_error` ** 2 is close to rows_variance / rows + seeds_variance.
    """

    value: float
    standard_error: float
    degrees_of_freedom: float
    rows: int
    seeds: tuple[int, ...]
    rows_variance: float
    seeds_variance: float

    def interval(self, confidence: float = 0.95) -> Interval:
        """Return value -+ quantile times standard error; without a width where nothing varies."""
        reach = self.quantile(0.5 + confidence / 2) * self.standard_error
        return Interval(self.value, self.value - reach, self.value + reach, self.rows)

    def quantile(self, level: float) -> float:
        """Return the quantile of Student's distribution with these degrees of freedom."""
        from scipy.special import stdtrit

        return float(stdtrit(self.degrees_of_freedom, level))

    def chance_below(self, value: float) -> float:
        """Return the one-sided p value of "the truth is at least `value`": small where the estimate lies far below."""
        from scipy.special import stdtr

        if self.standard_error == 0:
            return 1.0 if self.value >= value else 0.0
        return float(stdtr(self.degrees_of_freedom, (self.value - value) / self.standard_error))


def mean_over_seeds(correct: Correct) -> Estimated:
    """Return the mean accuracy over seeds and rows. One seed: the error says nothing of the spread between seeds."""
    return _estimated((correct,), correct.mean(axis=0))


def paired_difference(first: Correct, second: Correct) -> Estimated:
    """Return the accuracy of `first` minus that of `second`, paired by row. ValueError where the rows differ in number.

    A method with one seed adds nothing for the spread between seeds: the answer is then about that one training.
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"a paired difference needs the same rows; got {first.shape[1]} and {second.shape[1]}")
    return _estimated((first, second), first.mean(axis=0) - second.mean(axis=0))


def accuracy_interval(correct: Correct, confidence: float = 0.95) -> Interval:
    """Return the interval of the mean accuracy over seeds and rows: Wilson's, with the rows that the error is worth.

    The effective number of rows is p (1 - p) / variance, shrunk for few degrees of freedom (Korn and Graubard 1998).
    """
    estimated = mean_over_seeds(correct)
    reach = estimated.quantile(0.5 + confidence / 2)
    low, high = on_wilson_scale(estimated.value, _effective_rows(estimated), reach)
    return Interval(estimated.value, low, high, estimated.rows)


def chance_of_reaching(correct: Correct, target: float) -> float:
    """Return the probability that the accuracy (in expectation over seeds and rows) is at least `target`.

    From the posterior beta distribution with Jeffreys' prior (Brown, Cai and DasGupta 2001) on the effective number of
    rows, shrunk for few degrees of freedom as in `accuracy_interval`.
    """
    from scipy.special import betainc

    estimated = mean_over_seeds(correct)
    # At 97.5 %, as in Korn and Graubard's interval: the ratio hardly depends on the level.
    rows = _effective_rows(estimated) * (1.959964 / estimated.quantile(0.975)) ** 2
    right = estimated.value * rows
    return float(1 - betainc(right + 0.5, rows - right + 0.5, target))


def hierarchical_bootstrap(
    first: Correct, second: Correct, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Return the percentile interval of the paired difference from resampling seeds, then rows.

    The nested bootstrap of Davison and Hinkley (1997, section 3.8), on a crossed table. For comparison with
    `paired_difference`: with three seeds its share of the variance between seeds is a third too small, so it is not
    what verdicts rest on.
    """
    generator = np.random.default_rng(seed)
    rows = first.shape[1]
    values = np.empty(resamples)
    for place in range(resamples):
        counts = np.bincount(generator.integers(0, rows, rows), minlength=rows)
        means = [
            np.bincount(generator.integers(0, len(one), len(one)), minlength=len(one)) @ (one @ counts) / len(one)
            for one in (first, second)
        ]
        values[place] = (means[0] - means[1]) / rows
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(first.mean() - second.mean()), float(low), float(high), rows)


def _estimated(arms: Sequence[Correct], by_row: NDArray[np.float64]) -> Estimated:
    rows = len(by_row)
    if rows < 2:
        raise ValueError(f"a variance over rows needs two rows; got {rows}")
    parts = [_between_seeds(arm) for arm in arms]
    noise = sum(part[1] for part in parts)
    over_rows = float(by_row.var(ddof=1)) / rows
    alike = max(0.0, over_rows - noise)
    variance = alike + sum(part[0] for part in parts)
    spread = alike**2 / (rows - 1)
    spread += sum(part[0] ** 2 / (len(arm) - 1) for part, arm in zip(parts, arms, strict=True) if len(arm) > 1)
    return Estimated(
        value=float(by_row.mean()),
        standard_error=variance**0.5,
        degrees_of_freedom=variance**2 / spread if spread > 0 else rows - 1.0,
        rows=rows,
        seeds=tuple(len(arm) for arm in arms),
        rows_variance=over_rows * rows,
        seeds_variance=sum(max(0.0, part[0] - part[1]) for part in parts),
    )


def _between_seeds(correct: Correct) -> tuple[float, float]:
    """Return the variance of a method's mean from its seeds as observed, and the part that is noise on single rows."""
    seeds, rows = correct.shape
    if seeds == 1:
        return 0.0, 0.0
    table = correct.astype(np.float64)
    means = table.mean(axis=1)
    rest = table - table.mean(axis=0) - means[:, None] + means.mean()
    noise = float((rest**2).sum()) / ((seeds - 1) * (rows - 1))
    return float(means.var(ddof=1)) / seeds, noise / (seeds * rows)


def _effective_rows(estimated: Estimated) -> float:
    """Return how many independent rows would give this standard error; the rows themselves where nothing varies."""
    if estimated.standard_error == 0:
        return float(estimated.rows)
    return estimated.value * (1 - estimated.value) / estimated.standard_error**2
