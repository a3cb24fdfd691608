"""Classification of a text or a pair of texts: one label of several, or any number of labels (`multi_label`).

Losses: cross-entropy with label smoothing (Szegedy et al. 2016, section 7), focal loss (Lin et al. 2017, equation 4),
both with class weights; for multi-label sets their binary forms, averaged over labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from peftlab.recipe.records import Fraction, Record

if TYPE_CHECKING:
    from torch import Tensor

    from peftlab.data.rows import Split, Splits
    from peftlab.evaluation.classification_scores import Scores
    from peftlab.recipe.records import Recipe

METRICS: tuple[str, ...] = ("accuracy", "macro_f1", "micro_f1", "weighted_f1", "roc_auc", "average_precision", "nll")
DEFAULT_METRIC = "accuracy"
CURATORS = True
"""Its rows are texts with labels, on which curators work."""


class Config(Record):
    """Settings of classification."""

    multi_label: bool = False
    """A row may have any number of labels."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Multi-label: a label is predicted at this probability and above."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """`focal` turns the weight of well-classified rows down."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Focusing parameter of the focal loss."""
    label_smoothing: Fraction = 0.0
    """Share of the target spread evenly over all labels."""
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = "none"
    """`balanced`: rows / (classes * rows of the class); or a weight for each label by name."""


def load_splits(
    recipe: Recipe,
    config: Config,
    *,
    token_lengths: Any = None,
    report_path: Path | None = None,
) -> Splits:
    """Return the recipe's checked splits; raises DataError where the rows cannot be used.

    `token_lengths` maps texts and pairs to token counts, for the truncation share in the report.
    """
    from peftlab.data.labelled import load_labelled

    return load_labelled(
        recipe.data,
        recipe_path=recipe.path,
        seed=recipe.train.seed,
        multi_label=config.multi_label,
        max_length=recipe.encoder.max_length if recipe.encoder is not None else None,
        report_path=report_path,
        token_lengths=token_lengths,
    )


def label_weights(config: Config, splits: Splits) -> NDArray[np.float32] | None:
    """Return a weight for each label, [labels], or None for equal weights; UserError for an unknown label name."""
    if config.class_weights == "none":
        return None
    if config.class_weights == "balanced":
        labels = splits.train.labels
        rows = labels.sum(0) if splits.multi_label else np.bincount(labels, minlength=len(splits.label_names))
        return np.asarray(len(labels) / (len(splits.label_names) * np.maximum(rows, 1)), np.float32)
    return _named_weights(config.class_weights, splits.label_names)


def _named_weights(weights: Mapping[str, float], names: Sequence[str]) -> NDArray[np.float32]:
    from peftlab.errors import DataError

    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise DataError(
            f"task.class_weights names labels that no training row has: {unknown}; labels are: {', '.join(names)}"
        )
    return np.asarray([weights.get(name, 1.0) for name in names], np.float32)


def row_weights(labels: NDArray[Any], weights: NDArray[np.float32] | None, config: Config) -> NDArray[np.float32]:
    """Return what each row counts in the mean of the loss, [rows]: the weight of its label, else 1."""
    if weights is None or config.multi_label:
        return np.ones(len(labels), np.float32)
    return np.asarray(weights[labels], np.float32)


def row_losses(logits: Tensor, targets: Tensor, weights: Tensor | None, config: Config) -> Tensor:
    """Return the loss of each row, [rows], in fp32, before `row_weights`.

    `logits`: [rows, labels]. `targets`: int64 [rows], or for multi-label fp32 [rows, labels].
    `weights` are the label weights; in a multi-label loss they weigh the labels of one row against each other.
    """
    import torch
    from torch.nn import functional

    logits = logits.float()
    if not config.multi_label:
        losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=config.label_smoothing)
        if config.loss == "focal":
            likelihood = logits.softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)
            losses = (1.0 - likelihood) ** config.focal_gamma * losses
        return losses
    smooth = targets * (1.0 - config.label_smoothing) + 0.5 * config.label_smoothing
    terms = functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    if config.loss == "focal":
        probability = logits.sigmoid()
        terms = (1.0 - torch.where(targets > 0.5, probability, 1.0 - probability)) ** config.focal_gamma * terms
    return terms.mean(1) if weights is None else (terms * weights).sum(1) / weights.sum()


def point_metrics(logits: NDArray[np.float32], split: Split, splits: Splits, config: Config) -> dict[str, float]:
    """Return the metrics of one validation, without intervals."""
    from peftlab.evaluation.classification_scores import point_metrics as points

    return points(logits, split.labels, splits.label_names, multi_label=config.multi_label, threshold=config.threshold)


def score(logits: NDArray[np.float32], split: Split, splits: Splits, config: Config) -> Scores:
    """Return every metric of `split` with its 95 % interval, the per-class table and the confusion matrix."""
    from peftlab.evaluation.classification_scores import score_classification

    return score_classification(
        logits, split.labels, splits.label_names, multi_label=config.multi_label, threshold=config.threshold
    )
