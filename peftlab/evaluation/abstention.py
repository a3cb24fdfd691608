"""From validation rows to a temperature and a threshold whose promise holds although the threshold was chosen.

A text is routed by its label where the label's probability s reaches a threshold t; else it goes to a person. The risk
R(t) is the share of wrong labels among s >= t, in the population that the rows were drawn from. Asked is the lowest t,
the largest coverage, with R(t) <= a, where a = 1 - target, and with the stated confidence 1 - d.

A bound of R(t) at a t that was picked on the same rows says nothing: the best of many estimates is too good. So, as
Learn then Test does (Angelopoulos, Bates, Candès, Jordan and Lei 2021, arXiv 2110.01052, section 2 and fixed-sequence
testing), every threshold is a hypothesis "R(t) > a", and they are tested in an order that is fixed before:

1. The rows are split by a fixed draw. One part gives temperature (Guo et al. 2017) and the threshold t0 to start from.
2. On the other part, for t falling from t0, N(t) rows have s >= t and E(t) of them are wrong. Given N(t), E(t) is
   binomial, so p(t) = P(Binomial(N(t), a) <= E(t)) is a valid p-value for one t that is named before; p(t) <= d says
   the same as an upper Clopper-Pearson bound of level 1 - d that is at most a.
3. t falls as long as p(t) <= d, and stops at the first t where it is not. The last t before is the threshold.

Why choosing costs nothing: let t* be the highest t <= t0 with R(t) > a. It is a number, not a statistic: the population
and t0 fix it. A threshold with R > a can only be reached through t*, so the promise is broken only if p(t*) <= d, which
has a probability of at most d. (Where the supremum is not attained, take t rising to it.) R may have any shape, and s
need not be calibrated: that costs coverage, not the promise. No grid is needed: p only changes at the rows' own s.

It holds for rows drawn independently from the population that is routed later. Where the same rows chose the model
among K (checkpoints, say), d is divided by K: by the union bound all K then keep the promise with the confidence asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import DataError
from peftlab.evaluation.routing import tempered

LEAST_ROWS = 10
FIT_SHARE = 0.2
MOST_FITTED = 1000
POWER = 0.8
"""Probability of success for which `rows_needed` plans."""


@dataclass(frozen=True)
class Abstention:
    """What the rows gave; the fields are those of `calibration.json`."""

    temperature: float
    threshold: float | None
    start: float
    rows_fitted: int
    rows_tested: int
    routed: int
    wrong: int
    rows_needed: int | None


def fit_abstention(
    chances: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    target: float,
    confidence: float,
    candidates: int = 1,
    seed: int = 0,
) -> Abstention:
    """Fit temperature and threshold on probabilities [rows, labels] (softmax of the logits) and gold labels [rows].

    `candidates`: models that these rows have chosen among. `seed` draws the split of the rows. Raises DataError for
    fewer than 10 rows, ValueError for a target or a confidence that is not between 0 and 1.
    """
    if not 0 < target < 1 or not 0 < confidence < 1:
        raise ValueError(f"target and confidence lie between 0 and 1; got {target} and {confidence}")
    if len(labels) < LEAST_ROWS:
        raise DataError(
            f"there are {len(labels)} validation rows; at least {LEAST_ROWS} are needed, and hundreds for a promise"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    fitted = min(MOST_FITTED, round(FIT_SHARE * len(labels)))
    fit, rest = order[:fitted], order[fitted:]
    risk, level = 1 - target, (1 - confidence) / candidates
    temperature = fit_temperature(chances[fit], labels[fit])
    score = tempered(chances, temperature).max(axis=1)
    wrong = chances.argmax(axis=1) != labels
    start = _start(score[fit], wrong[fit], risk, level, len(rest))
    threshold, routed, errors = _lowest(score[rest], wrong[rest], start, risk, level)
    needed = None
    if threshold is None:
        needed = _rows_needed(score[rest], wrong[rest], start, risk, level, len(labels))
    return Abstention(temperature, threshold, start, fitted, len(rest), routed, errors, needed)


def fit_temperature(chances: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the temperature under which the gold labels are likeliest (Guo et al. 2017, section 4.2).

    log T has a standard normal prior: where every row is right the likelihood alone would go to T = 0.
    """
    from scipy.optimize import minimize_scalar

    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(chances), -700.0)  # a gold label of probability 0 must not be infinitely unlikely
    gold = logits[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        top = logits.max(axis=1) * inverse
        totals = top + np.log(np.exp(logits * inverse - top[:, None]).sum(axis=1))
        return float((totals - gold * inverse).sum()) + log_temperature**2 / 2

    return math.exp(float(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded").x))


def risk_coverage(
    score: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return thresholds, falling, and for each coverage and accuracy of the rows that reach it (El-Yaniv 2010)."""
    thresholds, rows, wrong = _counts(score, ~right)
    return thresholds, rows / len(score), 1 - wrong / rows


def _counts(
    score: NDArray[np.float64], wrong: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct scores, falling, with the rows that reach each, and how many of these are wrong."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.flatnonzero(np.r_[np.diff(ranked) != 0, np.ones(min(1, len(ranked)), np.bool_)])
    return ranked[last], last + 1, np.cumsum(wrong[order].astype(np.int64))[last]


def _start(score: NDArray[np.float64], wrong: NDArray[np.bool_], risk: float, level: float, tested: int) -> float:
    """Return the threshold at which a test on `tested` other rows is surest to succeed, as far as these rows tell.

    The risk there is taken as the mean of the share seen and of the share stated, which is smoother; the power of the
    test is that of its normal approximation.
    """
    thresholds, rows, errors = _counts(score, wrong)
    stated = np.cumsum(np.sort(1 - score))[rows - 1]
    expected = np.maximum((errors + stated) / (2 * rows), 1e-6)
    gap = (risk - expected) * np.sqrt(rows * (tested / len(score)))
    power = (gap - _quantile(1 - level) * math.sqrt(risk * (1 - risk))) / np.sqrt(expected * (1 - expected))
    return float(thresholds[power.argmax()])


def _lowest(
    score: NDArray[np.float64], wrong: NDArray[np.bool_], start: float, risk: float, level: float
) -> tuple[float | None, int, int]:
    """Let the threshold fall from `start` as long as its test succeeds; return it, and the rows routed and wrong."""
    from scipy.stats import binom

    thresholds, rows, errors = _counts(score, wrong)
    above = int((thresholds >= start).sum())
    places = np.arange(max(0, above - 1), len(thresholds))  # the first: the lowest score at or above the start
    if above == 0:
        return None, 0, 0
    passed = binom.cdf(errors[places], rows[places], risk) <= level
    steps = len(passed) if passed.all() else int(passed.argmin())
    if steps == 0:
        return None, 0, 0
    place = int(places[steps - 1])
    return _between(thresholds, place, start), int(rows[place]), int(errors[place])


def _between(thresholds: NDArray[np.float64], place: int, start: float) -> float:
    """Return a threshold that routes the rows from `place` up: 0 where these are all.

    Every one down to the next lower score does. The middle keeps its distance from both, so that rounding moves no row.
    """
    if place + 1 == len(thresholds):
        return 0.0
    upper, lower = min(float(thresholds[place]), start), float(thresholds[place + 1])
    middle = (upper + lower) / 2
    return middle if middle > lower else upper


def _rows_needed(
    score: NDArray[np.float64], wrong: NDArray[np.bool_], start: float, risk: float, level: float, rows_now: int
) -> int | None:
    """Return how many validation rows, those for fitting included, would probably let something be routed.

    Probably: with a probability of 80 %, by the normal approximation, if risks are as the tested rows have them, one
    error and one right row added to each. None where no threshold has a risk below the one allowed.
    """
    thresholds, rows, errors = _counts(score, wrong)
    seen = (errors + 1) / (rows + 2)
    good = seen < risk
    if (good & (thresholds >= start)).any():
        good &= thresholds >= start
    if not good.any():
        return None
    spread = _quantile(1 - level) * math.sqrt(risk * (1 - risk)) + _quantile(POWER) * np.sqrt(seen * (1 - seen))[good]
    routed = (spread / (risk - seen[good])) ** 2
    tested = float((routed / (rows[good] / len(score))).min())
    return max(math.ceil(min(tested / (1 - FIT_SHARE), tested + MOST_FITTED)), rows_now + 1)


def _quantile(share: float) -> float:
    return NormalDist().inv_cdf(share)
