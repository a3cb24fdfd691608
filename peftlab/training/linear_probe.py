"""Solve a linear head by logistic regression on the frozen encoder's pooled embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import EncoderError
from peftlab.evaluation.logistic import solve_probe

if TYPE_CHECKING:
    from torch import nn

    from peftlab.data.rows import Splits

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Inverse penalties that `c = "auto"` tries, from the strongest penalty to the weakest."""


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
        weight, bias = solve_probe(
            train,
            splits.train.labels,
            c=strength,
            max_iterations=max_iterations,
            seed=seed,
            weights=splits.train.weights,
        )
        logits = validation @ weight.T + bias
        right = (logits > 0) == (labels > 0) if splits.multi_label else logits.argmax(1) == labels
        accuracy = float(right.mean()) if right.size else 0.0
        if best is None or accuracy > best.accuracy:
            best = Probe(weight, bias, strength, accuracy)
    if best is None:
        raise AssertionError("there is at least one strength")
    return best


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
