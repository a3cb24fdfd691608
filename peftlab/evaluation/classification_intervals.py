"""The 95 % interval of each classification metric.

Accuracy is a proportion (Wilson). The F1 averages and losses are bootstrapped over rows. ROC-AUC and average precision
have analytic standard errors. Where nothing varies (every row right) the intervals other than Wilson's have no width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.calibration import calibration_interval, confidence_and_outcome
from peftlab.evaluation.decisions import Decisions
from peftlab.evaluation.intervals import Interval, bootstrap_weighted, on_logit_scale, percentiles, wilson
from peftlab.evaluation.ranking import (
    average_precision_derivative,
    macro_standard_error,
    rankable,
    roc_auc_derivative,
)

RESAMPLES = 1000


def classification_intervals(values: Mapping[str, float], decisions: Decisions, *, seed: int) -> dict[str, Interval]:
    """Return the interval of every metric in `values` (names as in METRICS), in that order; `seed` draws resamples."""
    gold, chances, n = decisions.gold, decisions.chances, len(decisions.gold)
    right = decisions.predicted == gold
    made = _bootstrapped(values, decisions, seed)
    made["accuracy"] = wilson(int(right.all(axis=1).sum() if decisions.multi_label else right.sum()), n)
    if not decisions.multi_label:
        made["micro_f1"] = made["accuracy"]
    stated = confidence_and_outcome(chances, gold, multi_label=decisions.multi_label)
    made["expected_calibration_error"] = calibration_interval(*stated, resamples=RESAMPLES, seed=seed)
    binary, _, ranked = rankable(gold, chances)
    for name, derivative in (("roc_auc", roc_auc_derivative), ("average_precision", average_precision_derivative)):
        if name in values:
            error = macro_standard_error(binary[:, ranked], chances[:, ranked], derivative)
            made[name] = on_logit_scale(values[name], error, n)
    return {name: made[name] for name in values}


def _bootstrapped(values: Mapping[str, float], decisions: Decisions, seed: int) -> dict[str, Interval]:
    from scipy.sparse import csr_array

    gold, guess = _one_hot(decisions.gold, decisions), _one_hot(decisions.predicted, decisions)
    hits, golds, guesses = (csr_array(table.astype(np.float64)) for table in (gold * guess, gold, guess))
    wrong, n = (gold != guess).mean(axis=1), len(gold)

    def statistics(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        hit, support, predicted = counts @ hits, counts @ golds, counts @ guesses
        # 0/0 is NaN here and left out, as in the metrics themselves.
        with np.errstate(invalid="ignore"):
            f1 = 2 * hit / (support + predicted)
            columns = (
                np.nansum(f1, axis=1) / np.isfinite(f1).sum(axis=1),
                2 * hit.sum(axis=1) / (support + predicted).sum(axis=1),
                np.nansum(f1 * support, axis=1) / support.sum(axis=1),
                counts @ decisions.losses / n,
                counts @ wrong / n,
            )
        return np.stack(columns, axis=1)

    resampled = bootstrap_weighted(statistics, n, resamples=RESAMPLES, seed=seed)
    made: dict[str, Interval] = {}
    for column, name in enumerate(("macro_f1", "micro_f1", "weighted_f1", "nll", "hamming_loss")):
        if name in values:
            low, high = percentiles(resampled[:, column])
            made[name] = Interval(values[name], float(low), float(high), n)
    return made


def _one_hot(labels: NDArray[np.int64], decisions: Decisions) -> NDArray[np.int64]:
    if decisions.multi_label:
        return labels
    classes = np.arange(decisions.chances.shape[1])
    return np.equal(labels[:, None], classes).astype(np.int64)
