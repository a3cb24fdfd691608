"""Logistic regression on dense features: the linear head of a probe, and the probabilities that curators judge by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_CONSTANT = 1e-5
"""Deviation, as a share of the largest one and of the feature's own mean, below which a feature counts as constant."""


def solve_probe(
    features: NDArray[np.float32],
    labels: NDArray[Any],
    *,
    c: float,
    max_iterations: int,
    seed: int,
    weights: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight [labels, features] and bias [labels] of the logistic regression of `labels` on `features`.

    `features`: [rows, features], standardised inside; the standardisation is folded into weight and bias, so that they
    apply to raw features; a feature that is constant up to rounding gets weight 0. `labels`: class indices [rows], or
    for multi-label zeros and ones [rows, labels], one regression a label. `c`: inverse strength of the L2 penalty.
    `weights` [rows]: what each row counts in the loss, None for 1. Two classes give two opposite rows.
    """
    from sklearn.linear_model import LogisticRegression

    mean = features.mean(0)
    deviation = features.std(0)
    # A feature that varies by rounding only says nothing; divided by its deviation it would get a weight of 1e8, with
    # which the next change of the encoder blows the logits up. Infinite deviation makes it, and its weight, zero.
    deviation[deviation <= _CONSTANT * np.maximum(deviation.max(), np.abs(mean))] = np.inf
    standardised = (features - mean) / deviation
    columns = [labels] if labels.ndim == 1 else [labels[:, place] for place in range(labels.shape[1])]
    solved: list[NDArray[np.float64]] = []
    biases: list[NDArray[np.float64]] = []
    for column in columns:
        weight, bias = _constant(column, features.shape[1])
        if weight is None:
            model = LogisticRegression(C=c, max_iter=max_iterations, random_state=seed)
            model.fit(standardised, column, sample_weight=weights)
            weight, bias = model.coef_, model.intercept_
        solved.append(weight)
        biases.append(bias)
    weight, bias = np.concatenate(solved), np.concatenate(biases)
    if labels.ndim == 1 and len(weight) == 1:
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    weight = weight / deviation
    return weight.astype(np.float32), (bias - weight @ mean).astype(np.float32)


def _constant(column: NDArray[Any], width: int) -> tuple[Any, Any]:
    """Return the solution of a column that is all one value (a label that every row or no row has), else None."""
    values = np.unique(column)
    if len(values) > 1:
        return None, None
    return np.zeros((1, width)), np.full(1, 10.0 if values[0] else -10.0)
