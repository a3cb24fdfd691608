"""Classification of a text or a pair of texts: one label of several, or any number of labels (`multi_label`).

Losses: cross-entropy with label smoothing (Szegedy et al. 2016, section 7), focal loss (Lin et al. 2017, equation 4),
both with class weights; for multi-label sets their binary forms, averaged over labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from peftlab.recipe.records import Fraction, Record

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from peftlab.data.rows import Split, Splits
    from peftlab.data.tokens import Objective, Tokens
    from peftlab.encoders.load import LoadedEncoder
    from peftlab.evaluation.classification_scores import Scores
    from peftlab.evaluation.forward import Forward, Passes
    from peftlab.evaluation.intervals import Interval
    from peftlab.evaluation.predictor import Predictor
    from peftlab.evaluation.run_model import RunModel
    from peftlab.recipe.crosschecks import Draft
    from peftlab.recipe.records import Encoder, Recipe
    from peftlab.runs.certificate import Exported

PIPELINE = "text-classification"
HUB_METRICS = {"accuracy": "accuracy", "macro_f1": "f1"}
BUILTIN_SETS = ("relations-en", "tickets-en", "tickets-zh")
SOLVERS = ("gradient", "linear_probe", "own")
EXPORTS = "all"
EACH_TOKEN = False
FEATURES = ("combine", "curate", "distill", "entities", "several", "suites")
METRICS: tuple[str, ...] = ("accuracy", "macro_f1", "micro_f1", "weighted_f1", "roc_auc", "average_precision", "nll")
LOWER_IS_BETTER = ("nll",)
DEFAULT_METRIC = "accuracy"
HEADLINE = "accuracy"
ANSWER = "`label` and `probabilities`"


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


def unfit(draft: Draft) -> Iterator[tuple[str, str]]:  # noqa: ARG001 the contract
    """Yield no setting: every section was made for this task."""
    yield from ()


def load_splits(recipe: Recipe, config: Config, *, tokenizer: Any = None, report_path: Path | None = None) -> Splits:
    """Return the recipe's checked splits; raises DataError where the rows cannot be used.

    `tokenizer` counts tokens, for the truncation share in the report.
    """
    from peftlab.data.labelled import load_labelled
    from peftlab.data.tokens import full_lengths

    return load_labelled(
        recipe.data,
        recipe_path=recipe.path,
        seed=recipe.train.seed,
        multi_label=config.multi_label,
        max_length=recipe.encoder.max_length if recipe.encoder is not None else None,
        report_path=report_path,
        token_lengths=partial(full_lengths, tokenizer) if tokenizer is not None else None,
    )


def labels(splits: Splits) -> tuple[str, ...]:
    """Return the label names, in the order of the logits."""
    return splits.label_names


def load_model(
    recipe: Recipe,
    folder: Path,
    names: Sequence[str],
    *,
    kept: Mapping[str, Any] | None = None,  # noqa: ARG001 the contract
    device: torch.device | None = None,
) -> LoadedEncoder:
    """Load the encoder in `folder` under a head for the labels `names`, drawn from torch's generator."""
    from peftlab.encoders.load import HeadShape, load_classifier

    return load_classifier(recipe.needed_encoder(), folder, HeadShape(len(names), recipe.head.dropout), device=device)


def keeps_pooler(pooling: str) -> bool:
    """Say whether the encoder of a run has the architecture's own pooler: only runs that agree on it share one."""
    return pooling == "native"


def around(loaded: LoadedEncoder, encoder: Encoder, recipe: Recipe, names: Sequence[str]) -> LoadedEncoder:
    """Return the model of `load_model` around the encoder in `loaded`, with a head of arbitrary values."""
    from peftlab.encoders.load import HeadShape
    from peftlab.encoders.load import around as classifier_around

    pooling = recipe.needed_encoder().pooling
    if pooling == "auto":
        raise AssertionError("a finished run says which pooling it came to")
    return classifier_around(loaded, encoder, HeadShape(len(names), recipe.head.dropout), pooling)


def encode(tokenizer: Any, split: Split, recipe: Recipe) -> Tokens:
    """Return the tokens of the texts of `split`, cut to the recipe's length."""
    from peftlab.data.tokens import tokenise

    return tokenise(tokenizer, split.texts, split.pairs, recipe.needed_encoder().max_length)


def objective(
    encoded: Tokens,
    splits: Splits,
    recipe: Recipe,
    model: nn.Module,  # noqa: ARG001 the contract
    device: torch.device,
) -> Objective:
    """Return what the loop trains `model` by: the training rows in `encoded`, with their labels."""
    import torch

    from peftlab.data.tokens import Objective, labelled_batches

    config: Config = recipe.task.config  # type: ignore[assignment] # this task's own
    weights = label_weights(config, splits)
    on_device = torch.from_numpy(weights).to(device) if weights is not None else None
    gold = splits.train.labels

    def losses(logits: Tensor, targets: Tensor) -> Tensor:
        return row_losses(logits, targets, on_device, config)

    return Objective(
        batch=labelled_batches(encoded, torch.from_numpy(gold)),
        row_losses=losses,
        row_weights=row_weights(gold, weights, config) * splits.train.row_weights(),
    )


def label_weights(config: Config, splits: Splits) -> NDArray[np.float32] | None:
    """Return a weight for each label, [labels], or None for equal weights; UserError for an unknown label name."""
    if config.class_weights == "none":
        return None
    if config.class_weights == "balanced":
        gold = splits.train.labels
        rows = gold.sum(0) if splits.multi_label else np.bincount(gold, minlength=len(splits.label_names))
        return np.asarray(len(gold) / (len(splits.label_names) * np.maximum(rows, 1)), np.float32)
    return _named_weights(config.class_weights, splits.label_names)


def _named_weights(weights: Mapping[str, float], names: Sequence[str]) -> NDArray[np.float32]:
    from peftlab.errors import DataError

    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise DataError(
            f"task.class_weights names labels that no training row has: {unknown}; labels are: {', '.join(names)}"
        )
    return np.asarray([weights.get(name, 1.0) for name in names], np.float32)


def row_weights(gold: NDArray[Any], weights: NDArray[np.float32] | None, config: Config) -> NDArray[np.float32]:
    """Return what each row counts in the mean of the loss, [rows]: the weight of its label, else 1."""
    if weights is None or config.multi_label:
        return np.ones(len(gold), np.float32)
    return np.asarray(weights[gold], np.float32)


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


def logits(model: nn.Module, encoded: Tokens, recipe: Recipe, passes: Passes) -> NDArray[np.float32]:  # noqa: ARG001
    """Return the logits of all rows, [rows, labels]."""
    from peftlab.evaluation.forward import logits_of

    return logits_of(
        model,
        encoded,
        batch_size=passes.batch_size,
        device=passes.device,
        rank=passes.rank,
        world=passes.world,
    )


outputs = logits
"""What is scored is the logits."""


def predicted(outputs: NDArray[np.float32], splits: Splits, config: Config) -> list[Any]:  # noqa: ARG001 the contract
    """Return the decision on each row."""
    from peftlab.evaluation.decisions import predicted_labels, probabilities

    chances = probabilities(outputs, multi_label=config.multi_label)
    decided: list[Any] = predicted_labels(chances, multi_label=config.multi_label, threshold=config.threshold).tolist()
    return decided


def write_predictions(path: Path, outputs: NDArray[np.float32], split: Split, splits: Splits, config: Config) -> None:
    """Write `predictions.jsonl`: gold and predicted label and all probabilities of each row."""
    from peftlab.evaluation.predictions import write_predictions as write

    write(
        path,
        split.ids,
        outputs,
        split.labels,
        splits.label_names,
        multi_label=splits.multi_label,
        threshold=config.threshold,
    )


def predictor(run: RunModel, device: torch.device, against: Path | None) -> Predictor:  # noqa: ARG001 the contract
    """Return what `predict` asks: texts to labels and probabilities."""
    from peftlab.evaluation.predictor import encoder_classifier

    return encoder_classifier(run, device)


def decoding(model: nn.Module, config: Config) -> dict[str, NDArray[np.float32]]:  # noqa: ARG001 the contract
    """Return nothing: the logits say which label it is."""
    return {}


def tokens(encoded: Tokens) -> Tokens:
    """Return the tokens that an exported model reads."""
    return encoded


def read(logits: NDArray[np.float32], encoded: Tokens) -> NDArray[np.float32]:  # noqa: ARG001 the contract
    """Return those of `logits` that are used: all."""
    return logits


def outputs_of(
    read: NDArray[np.float32],
    encoded: Tokens,  # noqa: ARG001 the contract
    splits: Splits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001 the contract
    decoding: Mapping[str, NDArray[np.float32]],  # noqa: ARG001 the contract
) -> NDArray[np.float32]:
    """Return what is scored of the logits that were read: themselves."""
    return read


def right(outputs: NDArray[np.float32], split: Split, splits: Splits, config: Config) -> NDArray[np.bool_]:
    """Return which rows are predicted right, [rows]; multi-label: with every label right."""
    from peftlab.evaluation.agreement import rows_right

    return rows_right(outputs, split.labels, multi_label=splits.multi_label, threshold=config.threshold)


def difference(
    before: NDArray[np.float32], after: NDArray[np.float32], split: Split, splits: Splits, config: Config
) -> Interval:
    """Return the accuracy of `after` minus that of `before`, with its paired 95 % interval."""
    from peftlab.evaluation.paired import paired_bootstrap

    first, second = (right(outputs, split, splits, config).astype(np.float64) for outputs in (before, after))
    return paired_bootstrap(second, first)


def exported_predictor(
    exported: Exported,
    forward: Forward,
    tokenizer: Any,
    decoding: Mapping[str, NDArray[np.float32]],  # noqa: ARG001 the contract
    against: Path | None,  # noqa: ARG001
) -> Predictor:
    """Return what `predict` asks of an export: texts to labels and probabilities."""
    from peftlab.data.tokens import tokenise
    from peftlab.evaluation.forward import logits_through
    from peftlab.evaluation.predictor import Predictor

    def through(texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[np.float32]:
        return logits_through(forward, tokenise(tokenizer, texts, pairs, exported.max_length), exported.batch_size)

    return Predictor(
        labels=exported.labels,
        multi_label=exported.multi_label,
        threshold=exported.threshold,
        text_column=exported.text_column,
        pair_column=exported.pair_column,
        logits=through,
    )


def point_metrics(outputs: NDArray[np.float32], split: Split, splits: Splits, config: Config) -> dict[str, float]:
    """Return the metrics of one validation, without intervals."""
    from peftlab.evaluation.classification_scores import point_metrics as points

    return points(outputs, split.labels, splits.label_names, multi_label=config.multi_label, threshold=config.threshold)


def score(outputs: NDArray[np.float32], split: Split, splits: Splits, config: Config) -> Scores:
    """Return every metric of `split` with its 95 % interval, the per-class table and the confusion matrix."""
    from peftlab.evaluation.classification_scores import score_classification

    return score_classification(
        outputs, split.labels, splits.label_names, multi_label=config.multi_label, threshold=config.threshold
    )
