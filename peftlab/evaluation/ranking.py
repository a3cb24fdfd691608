"""Standard errors of ROC-AUC and average precision, without resampling.

Both are smooth functions of row weights. The derivative of the statistic with respect to each row's weight gives its
variance as the sum of the squared derivatives: the infinitesimal jackknife (Jaeckel 1972; Efron 1982, chapter 6). For
ROC-AUC of one class it is the variance of DeLong et al. (1988) with n in place of n - 1. Derivatives add up over
classes, so the macro average is covered too, with the dependence between classes of one row in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Derivative = Callable[[NDArray[np.bool_], NDArray[np.float64]], NDArray[np.float64]]


def rankable(
    references: NDArray[Any], chances: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]:
    """Return gold labels and chances, both [rows, classes], and which classes have rows on both sides, [classes]."""
    multi_label = references.ndim == 2
    columns = references if multi_label else np.equal(references[:, None], np.arange(chances.shape[1]))
    gold: NDArray[np.bool_] = columns.astype(np.bool_)
    both_sides = np.logical_and(gold.any(axis=0), ~gold.all(axis=0))
    return gold, chances, both_sides


def macro_standard_error(gold: NDArray[np.bool_], scores: NDArray[np.float64], derivative: Derivative) -> float:
    """Return the standard error of the mean over classes of a ranking statistic.

    `gold` and `scores` have shape [rows, classes]; every class must have a gold row and a row without it.
    """
    total = np.zeros(len(gold))
    for column in range(gold.shape[1]):
        total += derivative(gold[:, column], scores[:, column])
    return float(np.sqrt(np.square(total / gold.shape[1]).sum()))


def roc_auc_derivative(gold: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the derivative of one class's ROC-AUC with respect to each row's weight, at weights of one."""
    from scipy.stats import rankdata

    positives = int(gold.sum())
    negatives = len(gold) - positives
    ranks = rankdata(scores)
    # Share of the other side that each row is ranked rightly against, ties counted half.
    won = np.empty(len(gold))
    won[gold] = (ranks[gold] - rankdata(scores[gold])) / negatives
    won[~gold] = 1 - (ranks[~gold] - rankdata(scores[~gold])) / positives
    area = won[gold].mean()
    derivative: NDArray[np.float64] = (won - area) / np.where(gold, positives, negatives)
    return derivative


def average_precision_derivative(gold: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the derivative of one class's average precision with respect to each row's weight, at weights of one."""
    order = np.argsort(-scores, kind="stable")
    hit = gold[order].astype(np.float64)
    first, last = _ends_of_ties(scores[order])
    ranked = last + 1.0
    found = np.cumsum(hit)[last]
    precision = found / ranked
    positives = hit.sum()
    average = (hit * precision).sum() / positives
    # A row raises the hits of every threshold at or below it, if it is one, and the rows ranked there in any case.
    as_hit = _sum_from(hit / ranked, first)
    as_ranked = _sum_from(hit * found / ranked**2, first)
    derivative = np.empty(len(gold))
    derivative[order] = (hit * (precision - average + as_hit) - as_ranked) / positives
    return derivative


def _ends_of_ties(descending: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the first and the last position of each row's group of equal scores."""
    starts = np.flatnonzero(np.r_[True, np.diff(descending) != 0])
    ends = np.r_[starts[1:], len(descending)] - 1
    group = np.repeat(np.arange(len(starts)), ends - starts + 1)
    return starts[group], ends[group]


def _sum_from(values: NDArray[np.float64], first: NDArray[Any]) -> NDArray[np.float64]:
    """Return, for each row, the sum of `values` from position `first` of that row to the end."""
    tail: NDArray[np.float64] = np.cumsum(values[::-1])[::-1][first]
    return tail
