"""Solve a linear head by logistic regression on the frozen encoder's pooled embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import EncoderError

if TYPE_CHECKING:
    from torch import nn

    from peftlab.data.rows import Splits

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Inverse penalties that `c = "auto"` tries, from the strongest penalty to the weakest."""
_CONSTANT = 1e-5
"""Deviation, as a share of the largest one and of the feature's own mean, below which a feature counts as constant."""


@dataclass(frozen=True)
class Probe:
    """A solved head, weight [labels, features] and bias [labels], its inverse penalty, and its validation accuracy."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    c: float
    accuracy: float


def choose_probe(
    train: NDArray[np.float32],
    validation: NDArray[np.float32],
    splits: Splits,
    *,
    c: float | Literal["auto"],
    seed: int,
    max_iterations: int = 1000,
) -> Probe:
    """Solve the probe on the training features; for `c = "auto"` take the strength that validates best.

    Of equally good ones the strongest penalty is taken. Accuracy counts decisions of labels for multi-label sets.
    """
    labels = splits.validation.labels
    best: Probe | None = None
    for strength in STRENGTHS if c == "auto" else (c,):
        weight, bias = solve_probe(train, splits.train.labels, c=strength, max_iterations=max_iterations, seed=seed)
        logits = validation @ weight.T + bias
        right = (logits > 0) == (labels > 0) if splits.multi_label else logits.argmax(1) == labels
        accuracy = float(right.mean()) if right.size else 0.0
        if best is None or accuracy > best.accuracy:
            best = Probe(weight, bias, strength, accuracy)
    if best is None:
        raise AssertionError("there is at least one strength")
    return best


def solve_probe(
    features: NDArray[np.float32],
    labels: NDArray[Any],
    *,
    c: float,
    max_iterations: int,
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight [labels, features] and bias [labels] of the logistic regression of `labels` on `features`.

    `features`: [rows, features], standardised inside; the standardisation is folded into weight and bias, so that they
    apply to raw features; a feature that is constant up to rounding gets weight 0. `labels`: class indices [rows], or
    for multi-label zeros and ones [rows, labels], one regression a label. `c`: inverse strength of the L2 penalty. Two
    classes give two opposite rows.
    """
    from sklearn.linear_model import LogisticRegression

    mean = features.mean(0)
    deviation = features.std(0)
    # A feature that varies by rounding only says nothing; divided by its deviation it would get a weight of 1e8, with
    # which the next change of the encoder blows the logits up. Infinite deviation makes it, and its weight, zero.
    deviation[deviation <= _CONSTANT * np.maximum(deviation.max(), np.abs(mean))] = np.inf
    standardised = (features - mean) / deviation
    columns = [labels] if labels.ndim == 1 else [labels[:, place] for place in range(labels.shape[1])]
    weights: list[NDArray[np.float64]] = []
    biases: list[NDArray[np.float64]] = []
    for column in columns:
        weight, bias = _constant(column, features.shape[1])
        if weight is None:
            model = LogisticRegression(C=c, max_iter=max_iterations, random_state=seed)
            model.fit(standardised, column)
            weight, bias = model.coef_, model.intercept_
        weights.append(weight)
        biases.append(bias)
    weight, bias = np.concatenate(weights), np.concatenate(biases)
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


def write_head(model: nn.Module, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    """Put `weight` and `bias` into the trained linear head of `model`, attached or not."""
    import torch

    linear = linear_head(model)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias))


def linear_head(model: nn.Module) -> Any:
    """Return the linear layer `classifier` of a pooled classifier; peft's trained copy where there is one.

    Raises EncoderError where the architecture's own head is used: it has layers between the embedding and the logits.
    """
    from peftlab.encoders.pooled import PooledClassifier

    for module in model.modules():
        if isinstance(module, PooledClassifier):
            wrapped: Any = module.classifier
            return wrapped.modules_to_save["default"] if hasattr(wrapped, "modules_to_save") else wrapped
    raise EncoderError("a probe needs one linear layer on pooled embeddings; set encoder.pooling = 'mean' or 'cls'")
