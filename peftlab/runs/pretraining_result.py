"""`pretraining.json`: what one pretraining measured, versioned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from peftlab.errors import RunError
from peftlab.runs.files import write_json
from peftlab.runs.result_parts import Amount, Count, Device, Memory, RecipeUsed, ResultRecord, Seconds

FILE_NAME = "pretraining.json"
ENCODER = "encoder"
"""Folder of the pretrained encoder in a run folder: what `encoder.name` of a training recipe may name."""


class TextUsed(ResultRecord):
    """The unlabelled text."""

    names: tuple[str, ...]
    """Files, or the built-in set."""
    sha256: str
    """SHA-256 over their content."""
    lines: Count
    """Passages that were packed."""
    passed_over: Count
    """Passages that were too short."""
    length: Count
    """Tokens of one sequence."""
    train_sequences: Count
    """Sequences trained on in an epoch."""
    held_out_sequences: Count
    """Sequences held out."""
    unknown_share: float
    """Share of the tokens that the vocabulary does not know."""


class Predictability(ResultRecord):
    """Held-out text, with the same masks at every measurement."""

    nll: float
    """Mean negative log-likelihood of the predicted tokens, in nats."""
    perplexity: float
    """Its exponential."""
    accuracy: float
    """Share of the predicted tokens that the model puts first."""
    predictions: Count
    """Predicted tokens."""


class PretrainingResult(ResultRecord):
    """One pretraining."""

    schema_version: Annotated[int, Field(ge=1, le=1)] = 1
    """Version of this schema."""
    kind: Literal["pretraining"] = "pretraining"
    """Tells this file from a training's result."""
    status: Literal["ok", "failed", "interrupted"]
    """`ok` only where the encoder was saved and reloads to the same hidden states."""
    reason: str | None = None
    """Why it failed or was interrupted; null where status is ok."""
    recipe: RecipeUsed
    """The recipe."""
    started_from: str | None = None
    """The encoder that was continued; null where weights started at random."""
    method: str | None = None
    """Method plug-in through which an existing encoder was adapted; null where all weights were trained."""
    text: TextUsed | None = None
    """The text; null where it could not be read."""
    vocabulary: Count | None = None
    """Entries of the vocabulary."""
    architecture: dict[str, int]
    """Layers, hidden size, heads, intermediate size, positions."""
    trainable: Count | None = None
    """Trained parameters, the language-model head included."""
    total: Count | None = None
    """All parameters."""
    steps: Count = 0
    """Optimizer steps."""
    epochs: float = 0.0
    """Passes over the training sequences."""
    tokens: Count = 0
    """Tokens read in training, over all epochs."""
    held_out: Predictability | None = None
    """At the checkpoint that was kept."""
    best_step: Count | None = None
    """Step of that checkpoint."""
    seconds: Seconds
    """Durations."""
    memory: Memory = Memory()
    """Peak memory."""
    tokens_per_second: Amount | None = None
    """Tokens per second of `seconds.train`."""
    device: Device | None = None
    """Where it ran."""
    seed: Count
    """Seed of weights, masks and order."""
    versions: dict[str, str]
    """Versions of Python, peftlab and the libraries."""
    git_commit: str | None = None
    """Commit of the checkout, where there is one."""
    notes: tuple[str, ...] = ()
    """What people were told."""


def write_pretraining_result(folder: Path, result: PretrainingResult) -> None:
    """Write `pretraining.json` into `folder`, whole or not at all."""
    write_json(folder / FILE_NAME, result.model_dump(mode="json"))


def read_pretraining_result(folder: Path) -> PretrainingResult:
    """Return the result of the pretraining in `folder`; RunError where it is missing or broken."""
    path = folder / FILE_NAME
    try:
        return PretrainingResult.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{folder} has no {FILE_NAME}: it is no pretraining, or it has not ended") from None
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is not a valid result: {str(error).splitlines()[0]}") from error
