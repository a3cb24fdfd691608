"""`result.json`: what one run measured, versioned. `docs/result.md` says the same for readers of the file.

A file of the same or an older schema version can be read. The version goes up with every change of a field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator

from peftlab.errors import RunError
from peftlab.runs.files import write_text
from peftlab.runs.result_parts import (
    Amount,
    Best,
    Ceiling,
    ClassScores,
    Count,
    DataUsed,
    Device,
    Distilled,
    EncoderUsed,
    Estimate,
    Memory,
    Metrics,
    Parameters,
    RecipeUsed,
    ResultRecord,
    RoundTrip,
    Seconds,
    Target,
    TaskTable,
)

SCHEMA_VERSION = 3
FILE_NAME = "result.json"


def _in_utc(moment: AwareDatetime) -> AwareDatetime:
    if moment.utcoffset() != timedelta(0):
        raise ValueError("expected a time in UTC")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Result(ResultRecord):
    """One run."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    """Version of this schema."""
    status: Literal["ok", "validated", "stopped", "failed", "interrupted"]
    """`ok` only where the test split was scored and the saved model reloads to the same logits; `validated`: the same,
    but for the test split, which the recipe put aside (`evaluation.score_test = false`); `stopped`: as one of both, but
    with the best model at the ceiling `budget.minutes`, from where the run can be continued."""
    reason: str | None = None
    """Why the run failed, was interrupted or stopped; null otherwise."""
    traceback: str | None = None
    """Traceback of a failure that is ours."""
    recipe: RecipeUsed
    """The recipe."""
    task: str
    """Task plug-in."""
    method: str
    """Method plug-in."""
    encoder: EncoderUsed = EncoderUsed()
    """The encoder."""
    stand_in: bool = False
    """The recipe's `stand_in` took the place of an encoder that could not be reached."""
    data: DataUsed | None = None
    """The labelled rows; null where they could not be read."""
    distilled: Distilled | None = None
    """The runs that taught this one; null where none did."""
    metrics: Metrics = Metrics()
    """Metrics by name."""
    scores: ClassScores | None = None
    """The test split in detail, for classification."""
    tables: tuple[TaskTable, ...] = ()
    """The test split in detail, for other tasks: such as a row per type of entity."""
    facts: dict[str, str] = Field(default={})
    """What the metrics of the task depend on beyond the rows, by name: such as the version and settings of a scorer."""
    target: Target | None = None
    """The test score that the recipe asks for, and whether it was reached; null where none is asked."""
    budget: dict[str, Ceiling] = Field(default={})
    """Each ceiling of the recipe's `[budget]` with what was measured; empty where there is none."""
    parameters: Parameters | None = None
    """Counts of parameters; null where the model was not built."""
    ranks: dict[str, Count] | None = None
    """Rank of each adapted module in the end; null for methods that do not allocate ranks."""
    best: Best | None = None
    """The checkpoint that was tested; null for methods without checkpoints."""
    round_trip: RoundTrip | None = None
    """What was saved, loaded back in fresh objects."""
    seconds: Seconds
    """Durations."""
    memory: Memory = Memory()
    """Peak memory."""
    tokens_per_second: Amount | None = None
    """Real tokens, without padding, per second of `seconds.train`, over all processes."""
    device: Device | None = None
    """Where it ran."""
    seeds: dict[str, Count]
    """Seeds by use."""
    versions: dict[str, str]
    """Versions of Python, peftlab and the libraries that bear on the result; `code`: SHA-256 of peftlab's own modules
    that do."""
    git_commit: str | None = None
    """Commit of peftlab's own checkout, where it is one; with `+changes` where files differ from it."""
    notes: tuple[str, ...] = ()
    """What the run announced on the way: a halved batch, a stand-in, warnings."""
    started: Moment
    """Start, UTC."""
    finished: Moment
    """End, UTC."""

    @model_validator(mode="after")
    def _whole(self) -> Result:
        """Refuse an ok without proof, and a failure without a reason."""
        if self.status in ("failed", "interrupted"):
            if not self.reason:
                raise ValueError(f"status {self.status} needs a reason")
            return self
        needed: dict[str, Any] = {"metrics.test": self.metrics.test} if self.status == "ok" else {}
        needed |= {"data": self.data, "parameters": self.parameters, "round_trip": self.round_trip}
        if missing := [name for name, value in needed.items() if not value]:
            raise ValueError(f"status {self.status} needs {', '.join(missing)}")
        if self.status == "stopped" and not self.reason:
            raise ValueError("status stopped needs a reason")
        if self.reason is not None and self.status != "stopped":
            raise ValueError(f"status {self.status} has no reason")
        if self.status == "validated" and (self.metrics.test or self.scores is not None):
            raise ValueError("status validated has no test metrics")
        return self


class TaskScores(Protocol):
    """What a task makes of the test split. `metrics`: values with their 95 % intervals, by name.

    `to_dict()` gives plain JSON values without NaN: `metrics` as in `metrics.test`, and what there is of `scores`,
    `tables` and `facts`, as in the result.
    """

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metrics with `value`, `low`, `high` and `n`."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""


@dataclass(frozen=True)
class Scored:
    """The fields of a result that come from the scores of its task."""

    metrics: dict[str, Estimate]
    scores: ClassScores | None = None
    tables: tuple[TaskTable, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


def scored(scores: Mapping[str, Any]) -> Scored:
    """Return the fields of a result from the plain values of a task's scores (`to_dict`)."""
    detail = scores.get("scores")
    return Scored(
        metrics={name: Estimate.model_validate(values) for name, values in scores["metrics"].items()},
        scores=ClassScores.model_validate(detail, strict=False) if detail is not None else None,
        tables=tuple(TaskTable.model_validate(table, strict=False) for table in scores.get("tables", ())),
        facts=dict(scores.get("facts", {})),
    )


def write_result(folder: Path, result: Result) -> Path:
    """Write `result.json` into `folder`, whole or not at all, and return its path."""
    path = folder / FILE_NAME
    write_text(path, result_text(result))
    return path


def result_text(result: Result) -> str:
    """Return `result` as the text of its file."""
    text = json.dumps(result.model_dump(mode="json"), ensure_ascii=False, indent=2, allow_nan=False)
    # Lists of numbers, such as the rows of the confusion matrix, take one line each. A string holds no raw newline.
    numbers = re.compile(r"\[\n\s+(-?[\d.eE+-]+(?:,\n\s+-?[\d.eE+-]+)*)\n\s+\]")
    compact = numbers.sub(lambda found: "[" + re.sub(r",\n\s+", ", ", found[1]) + "]", text)
    return compact + "\n"


def read_result(folder: Path) -> Result:
    """Return the result of the run in `folder`; RunError where it is missing, broken or of a newer version."""
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise RunError(f"{folder} is not a run folder: there is no such folder")
    if not path.is_file():
        raise RunError(f"{folder} has no {FILE_NAME}: it is not a run folder, or its run is not finished")
    return read_result_file(path)


def read_result_file(path: Path) -> Result:
    """Return the result in a file of any name, such as a committed record; RunError as for `read_result`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, Mapping) or not isinstance(content.get("schema_version"), int):
        raise RunError(f"{path} has no schema_version: it is not a result of peftlab")
    if content["schema_version"] > SCHEMA_VERSION:
        version = content["schema_version"]
        raise RunError(
            f"{path} has schema version {version}; this peftlab reads up to {SCHEMA_VERSION}: update peftlab"
        )
    try:
        return Result.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise RunError(f"{path} is not a valid result:\n{_places(error)}") from None


def _places(error: ValidationError) -> str:
    lines = []
    for mistake in error.errors():
        place = ".".join(map(str, mistake["loc"]))
        lines.append(f"  {place}: {mistake['msg']}" if place else f"  {mistake['msg']}")
    return "\n".join(lines)
