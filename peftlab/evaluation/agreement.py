"""Two models on the same rows: how far their logits are apart, whose predictions flip, and which rows are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.decisions import predicted_labels, probabilities


@dataclass(frozen=True)
class Difference:
    """Absolute differences of logits, `largest` being the largest logit of the first model; `flips`: rows."""

    max: float
    mean: float
    largest: float
    flips: int
    rows: int


def logit_difference(
    before: NDArray[Any], after: NDArray[Any], decided: tuple[Sequence[Any], Sequence[Any]]
) -> Difference:
    """Compare logits of two models, of one shape; a NaN on either side counts as an infinite difference.

    `decided`: what each of them says of every row, in plain values that compare.
    """
    flips = sum(one != other for one, other in zip(*decided, strict=True))
    largest = float(np.abs(before).max(initial=0.0))
    return Difference(*gap(before, after), largest, flips, len(decided[0]))


def gap(before: NDArray[Any], after: NDArray[Any]) -> tuple[float, float]:
    """Return the largest and the mean absolute difference of two arrays; a NaN counts as an infinite difference."""
    gaps = np.abs(before.astype(np.float64) - after.astype(np.float64))
    gaps[np.isnan(gaps)] = np.inf
    return float(gaps.max(initial=0.0)), float(gaps.mean())


def rows_right(logits: NDArray[Any], labels: NDArray[Any], *, multi_label: bool, threshold: float) -> NDArray[np.bool_]:
    """Return which rows are predicted right, [rows]; multi-label: with every label right."""
    hit: NDArray[np.bool_] = np.equal(_predicted(logits, multi_label, threshold), labels.astype(np.int64))
    return np.asarray(hit.all(axis=1)) if multi_label else hit


def _predicted(logits: NDArray[Any], multi_label: bool, threshold: float) -> NDArray[np.int64]:
    chances = probabilities(logits, multi_label=multi_label)
    return predicted_labels(chances, multi_label=multi_label, threshold=threshold)
