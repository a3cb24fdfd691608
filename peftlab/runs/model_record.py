"""`model.json`: what is needed, beside the recipe and the trained part, to predict with a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from peftlab.errors import RunError
from peftlab.runs.files import write_json

FILE_NAME = "model.json"
TRAINED = "trained"
"""Folder of the trained part in a run folder: what is shipped."""
TOKENIZER = "tokenizer"
"""Folder of the tokenizer in a run folder."""
RECIPE = "recipe.toml"
"""File of the resolved recipe in a run folder."""


class EncoderRecord(BaseModel):
    """The encoder that the trained part belongs to; `sha256` covers its configuration and weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requested: str
    used: str
    kind: Literal["hub", "local", "bundled"]
    folder: str
    revision: str | None
    sha256: str
    pooling: Literal["native", "mean", "cls"]


class ModelRecord(BaseModel):
    """Labels in the order of the logits (none for a task without), and the encoder, None for a method that has none.

    `kept`: what else the task needs to load its model again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Annotated[int, Field(ge=1, le=1)] = 1
    labels: tuple[str, ...]
    multi_label: bool
    encoder: EncoderRecord | None
    kept: dict[str, JsonValue] = {}


def write_model_record(folder: Path, record: ModelRecord) -> None:
    """Write `model.json` into the run folder."""
    write_json(folder / FILE_NAME, record.model_dump(mode="json"))


def read_model_record(folder: Path) -> ModelRecord:
    """Read `model.json` of a run; RunError where the run has no model yet, or another version wrote it."""
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise RunError(f"there is no run folder {folder}")
    if not path.is_file():
        raise RunError(
            f"{folder} has no {FILE_NAME}: its run did not finish; continue it with: peftlab train --resume {folder}"
        )
    try:
        return ModelRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        raise RunError(
            f"{path} is not a model record of this version of peftlab: {str(error).splitlines()[0]}"
        ) from error
