"""From logits to probabilities, predicted labels and losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import DataError, PeftlabError


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return probabilities over the last axis, in float64; large logits do not overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-logits)), in float64; large logits of either sign do not overflow."""
    small = np.exp(-np.abs(logits.astype(np.float64)))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def probabilities(logits: NDArray[Any], *, multi_label: bool) -> NDArray[np.float64]:
    """Return class probabilities, shape [rows, classes]: softmax, or for multi-label sets one sigmoid a class."""
    return sigmoid(logits) if multi_label else softmax(logits)


def predicted_labels(chances: NDArray[np.float64], *, multi_label: bool, threshold: float = 0.5) -> NDArray[np.int64]:
    """Return class indices, shape [rows]; for multi-label sets zeros and ones, shape [rows, classes].

    The class of the largest probability, the first on ties; multi-label: every class from `threshold` on.
    """
    if multi_label:
        return (chances >= threshold).astype(np.int64)
    indices: NDArray[np.int64] = chances.argmax(axis=1)
    return indices


def negative_log_likelihood(logits: NDArray[Any], labels: NDArray[Any], *, multi_label: bool) -> NDArray[np.float64]:
    """Return each row's loss in nats, shape [rows]: -log p(gold); for multi-label sets the mean over the classes.

    Computed from logits, so a confident mistake costs its true amount instead of -log 0.
    """
    exact = logits.astype(np.float64)
    if multi_label:
        signed = np.where(labels > 0.5, exact, -exact)
        losses: NDArray[np.float64] = np.logaddexp(0.0, -signed).mean(axis=1)
        return losses
    top = exact.max(axis=1)
    log_total = top + np.log(np.exp(exact - top[:, None]).sum(axis=1))
    surprises: NDArray[np.float64] = log_total - exact[np.arange(len(exact)), labels]
    return surprises


@dataclass(frozen=True)
class Decisions:
    """What a classifier said about each row, beside the truth.

    `gold`, `predicted`: int64 class indices [rows], or zeros and ones [rows, classes] for multi-label sets.
    `chances`: probabilities [rows, classes]. `losses`: negative log-likelihood of each row in nats [rows].
    """

    gold: NDArray[np.int64]
    predicted: NDArray[np.int64]
    chances: NDArray[np.float64]
    losses: NDArray[np.float64]
    multi_label: bool


def decide(logits: NDArray[Any], labels: NDArray[Any], *, multi_label: bool, threshold: float = 0.5) -> Decisions:
    """Return decisions and losses for logits [rows, classes] and labels [rows] or, multi-label, [rows, classes].

    Raises DataError without rows, PeftlabError where a logit is NaN or infinite, ValueError for shapes that do not fit.
    """
    if len(labels) == 0:
        raise DataError("a split without rows cannot be scored")
    expected = logits.shape if multi_label else logits.shape[:1]
    if logits.ndim != 2 or labels.shape != expected:
        raise ValueError(f"logits of shape {logits.shape} do not fit labels of shape {labels.shape}")
    if bad := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise PeftlabError(f"the model gave NaN or infinite logits on {bad:,} of {len(logits):,} rows")
    gold = labels.astype(np.int64)
    chances = probabilities(logits, multi_label=multi_label)
    predicted = predicted_labels(chances, multi_label=multi_label, threshold=threshold)
    losses = negative_log_likelihood(logits, gold, multi_label=multi_label)
    return Decisions(gold, predicted, chances, losses, multi_label)
