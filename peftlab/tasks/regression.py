"""Regression: a number for a text or a pair of texts, such as stars, urgency or similarity.

The head of a classifier with one output, on the scale of `span`: 0 is its lower end and 1 its upper one. Loss: the mean
squared error on that scale, as BERT is fine-tuned for STS-B (Devlin et al. 2019, section 4.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from peftlab.recipe.records import Record

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from peftlab.data.rows import Split
    from peftlab.data.tokens import Objective, Tokens
    from peftlab.data.valued import ValuedSplits
    from peftlab.encoders.load import LoadedEncoder
    from peftlab.evaluation.forward import Passes
    from peftlab.evaluation.run_model import RunModel
    from peftlab.evaluation.value_predictor import ValuePredictor
    from peftlab.evaluation.value_scores import ValueScores
    from peftlab.recipe.crosschecks import Draft
    from peftlab.recipe.records import Recipe

PIPELINE = "text-classification"
HUB_METRICS = {"pearson": "pearsonr", "spearman": "spearmanr", "mse": "mse", "mae": "mae"}
ANSWER = "`value`, a number"
BUILTIN_SETS = ("reviews-en",)
SOLVERS = ("gradient",)
EXPORTS: tuple[str, ...] = ()
FEATURES: tuple[str, ...] = ()
METRICS: tuple[str, ...] = ("pearson", "spearman", "mse", "mae")
LOWER_IS_BETTER: tuple[str, ...] = ("mse", "mae")
DEFAULT_METRIC = "mse"
HEADLINE = "pearson"


class Config(Record):
    """Settings of regression."""

    span: tuple[float, float] = (0.0, 1.0)
    """Least and largest number that a row may have, such as `[1, 5]` for stars. Predictions are not cut to it."""

    @field_validator("span")
    @classmethod
    def _rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError(f"expected the lower end first, such as [1, 5], found {list(value)}")
        return value


def unfit(draft: Draft) -> Iterator[tuple[str, str]]:
    """Yield what does not apply to numbers: a margin of accuracy, rows without a label."""
    if draft.evaluation is not None and draft.evaluation.margin is not None:
        yield "evaluation.margin", "the rows needed for a margin are known for accuracy only; remove the key"
    if draft.data is not None and draft.data.checks.missing_label != "stop":
        yield "data.checks.missing_label", "every row needs its number; remove the key"


def load_splits(
    recipe: Recipe, config: Config, *, tokenizer: Any = None, report_path: Path | None = None
) -> ValuedSplits:
    """Return the recipe's checked texts with their numbers; raises DataError where the rows cannot be used."""
    from peftlab.data.text_pairs import reading_of
    from peftlab.data.valued import load_valued

    reading = reading_of(recipe, tokenizer, report_path)
    return load_valued(recipe.data, reading, config.span)


def labels(splits: ValuedSplits) -> tuple[str, ...]:  # noqa: ARG001 the contract
    """Return no names: the one output is a number."""
    return ()


def load_model(
    recipe: Recipe,
    folder: Path,
    names: Sequence[str],  # noqa: ARG001 the contract
    *,
    kept: Mapping[str, Any] | None = None,  # noqa: ARG001 the contract
    device: torch.device | None = None,
) -> LoadedEncoder:
    """Load the encoder in `folder` under a head with one output, drawn from torch's generator."""
    from peftlab.encoders.load import HeadShape, load_classifier

    return load_classifier(recipe.needed_encoder(), folder, HeadShape(1, recipe.head.dropout), device=device)


def encode(tokenizer: Any, split: Split, recipe: Recipe) -> Tokens:
    """Return the tokens of the texts of `split`, cut to the recipe's length."""
    from peftlab.data.tokens import tokenise

    return tokenise(tokenizer, split.texts, split.pairs, recipe.needed_encoder().max_length)


def objective(
    encoded: Tokens,
    splits: ValuedSplits,
    recipe: Recipe,
    model: nn.Module,  # noqa: ARG001 the contract
    device: torch.device,  # noqa: ARG001
) -> Objective:
    """Return what the loop trains by: the training rows in `encoded`, with their numbers on the scale of `span`."""
    import torch

    from peftlab.data.tokens import Objective, labelled_batches

    low, high = _config(recipe).span
    targets = torch.from_numpy(((splits.train.labels - low) / (high - low)).astype(np.float32))
    return Objective(
        batch=labelled_batches(encoded, targets),
        row_losses=squared_errors,
        row_weights=splits.train.row_weights(),
    )


def squared_errors(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each row, [rows], in fp32; `logits`: [rows, 1]."""
    return (logits.float().squeeze(1) - targets) ** 2


def logits(model: nn.Module, encoded: Tokens, recipe: Recipe, passes: Passes) -> NDArray[np.float32]:  # noqa: ARG001
    """Return the output for all rows, [rows, 1], on the scale of `span`."""
    from peftlab.evaluation.forward import logits_of

    return logits_of(
        model,
        encoded,
        batch_size=passes.batch_size,
        device=passes.device,
        rank=passes.rank,
        world=passes.world,
    )


def outputs(model: nn.Module, encoded: Tokens, recipe: Recipe, passes: Passes) -> NDArray[np.float64]:
    """Return the predicted number of all rows, [rows]."""
    return _numbers(logits(model, encoded, recipe, passes), _config(recipe))


def predicted(outputs: NDArray[np.float64], splits: ValuedSplits, config: Config) -> list[float]:  # noqa: ARG001
    """Return the predicted numbers to four digits: as the decision on a row they are compared."""
    return [round(value, 4) for value in outputs.tolist()]


def point_metrics(
    outputs: NDArray[np.float64],
    split: Split,
    splits: ValuedSplits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001
) -> dict[str, float]:
    """Return the metrics of one validation, without intervals."""
    from peftlab.evaluation.value_scores import point_metrics as points

    return points(outputs, split.labels)


def score(outputs: NDArray[np.float64], split: Split, splits: ValuedSplits, config: Config) -> ValueScores:  # noqa: ARG001
    """Return every metric of `split` with its 95 % interval, and the errors of the training mean."""
    from peftlab.evaluation.value_scores import score_values

    return score_values(outputs, split.labels, float(splits.train.labels.mean()))


def write_predictions(
    path: Path,
    outputs: NDArray[np.float64],
    split: Split,
    splits: ValuedSplits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001
) -> None:
    """Write `predictions.jsonl`: `id`, the `gold` number and the predicted `value`."""
    from peftlab.runs.files import whole_file

    with whole_file(path) as file:
        for name, gold, value in zip(split.ids, split.labels.tolist(), outputs.tolist(), strict=True):
            line = {"id": name, "gold": gold, "value": value}
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def predictor(run: RunModel, device: torch.device, against: Path | None) -> ValuePredictor:  # noqa: ARG001 the contract
    """Return what `predict` asks: texts to numbers."""
    from peftlab.data.tokens import tokenise
    from peftlab.evaluation.forward import logits_of
    from peftlab.evaluation.value_predictor import ValuePredictor

    def values(texts: Sequence[str], pairs: Sequence[str] | None) -> list[float]:
        tokens = tokenise(run.tokenizer, texts, pairs, run.encoder.max_length)
        found = logits_of(run.module, tokens, batch_size=run.recipe.evaluation.batch_size, device=device)
        numbers: list[float] = _numbers(found, _config(run.recipe)).tolist()
        return numbers

    return ValuePredictor(values, run.recipe.data.text, run.recipe.data.pair)


def _numbers(logits: NDArray[np.float32], config: Config) -> NDArray[np.float64]:
    """Return outputs on the scale of `span`, [rows, 1], as numbers, [rows]."""
    low, high = config.span
    return low + (high - low) * logits[:, 0].astype(np.float64)


def _config(recipe: Recipe) -> Config:
    config: Config = recipe.task.config  # type: ignore[assignment] # this task's own
    return config
