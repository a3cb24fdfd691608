"""`calibration.json`: which answers of a model may be given automatically, and what is promised of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from peftlab.errors import RunError
from peftlab.runs.certificate import file_hash
from peftlab.runs.files import write_text
from peftlab.runs.model_record import FILE_NAME as MODEL_RECORD
from peftlab.runs.model_record import TRAINED
from peftlab.runs.result import Moment
from peftlab.runs.result_parts import Count, Estimate, ResultRecord

SCHEMA_VERSION = 1
FILE_NAME = "calibration.json"

Inner = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class TestCheck(ResultRecord):
    """The promise held against the test rows, which neither temperature nor threshold has seen."""

    __test__ = False  # no test class, whatever pytest takes it for

    coverage: Estimate
    """Share of the test rows that is routed, with its 95 % interval (Wilson)."""
    accuracy: Estimate | None
    """Share of the routed test rows that is right; null where none is routed."""
    verdict: Literal["reached", "not_reached", "undecided"] | None
    """Whether that interval lies at or above the target, below it, or around it; null where none is routed."""


class RowsFile(ResultRecord):
    """A file of labelled rows that the run has not seen."""

    path: str
    sha256: str


class Calibration(ResultRecord):
    """One promise: of the texts that are routed, at least `target` get the right label, with `confidence`."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    target: Inner
    """Least accuracy on what is routed."""
    confidence: Inner
    """Probability, over draws of the rows that it was fitted on, with which the promise is kept."""
    rows: RowsFile | None
    """Where these rows are from; null: they are the run's validation rows."""
    candidates: Annotated[int, Field(ge=1)]
    """Models that the rows chose among, each tested at (1 - confidence) / candidates."""
    temperature: Annotated[float, Field(gt=0)]
    """Logits are divided by it before they become probabilities."""
    threshold: Share | None
    """A text is routed where its largest probability is at least this; null: no text is."""
    start: Share
    """Threshold at which the tests began."""
    rows_fitted: Count
    """Rows that gave temperature and start."""
    rows_tested: Count
    """The other rows, which tested thresholds."""
    routed: Count
    """Tested rows that the threshold routes."""
    wrong: Count
    """Of these, the ones that are wrong."""
    coverage: Estimate
    """Share of the tested rows that is routed, with its 95 % interval (Wilson)."""
    rows_needed: Count | None
    """Where nothing is routed: rows with which something probably would be; null where none would help."""
    test: TestCheck | None
    """Null where the run's test rows were put aside."""
    data_fingerprint: str
    """SHA-256 over ids, texts, pairs and labels of the three splits."""
    model: str
    """SHA-256 over what decides the answers of the run (see `model_hash`)."""
    created: Moment


def model_hash(folder: Path) -> str:
    """Return a SHA-256 over a run's model record and every file of its trained part, names included."""
    trained = folder / TRAINED
    names = sorted(path.relative_to(folder).as_posix() for path in trained.rglob("*") if path.is_file())
    lines = [f"{file_hash(folder / name)}  {name}\n" for name in (MODEL_RECORD, *names)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write `calibration.json` into the folder of a run or of an export, whole or not at all."""
    values = json.dumps(calibration.model_dump(mode="json"), ensure_ascii=False, indent=2, allow_nan=False)
    write_text(folder / FILE_NAME, values + "\n")


def run_calibration(folder: Path) -> Calibration | None:
    """Return the calibration of the run in `folder`, None where it has none; RunError where it is of another model."""
    if not (folder / FILE_NAME).is_file():
        return None
    found = _read(folder / FILE_NAME)
    if found.model != model_hash(folder):
        raise RunError(
            f"{folder / FILE_NAME} was made for another trained part than the one in {folder / TRAINED}, so its "
            f"promise does not hold here; make it anew with: peftlab calibrate {folder}, or remove it"
        )
    return found


def export_calibration(folder: Path, sha256: str | None) -> Calibration | None:
    """Return the calibration that came with the export in `folder`; `sha256` is what its certificate says of the file.

    RunError where the file is not the one that the export was made with, or is gone.
    """
    path = folder / FILE_NAME
    found = file_hash(path) if path.is_file() else None
    if found != sha256:
        how = "is missing" if found is None else "was not made with this export"
        raise RunError(f"{path} {how}; calibrate the run, and export it again")
    return _read(path) if found is not None else None


def _read(path: Path) -> Calibration:
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        lines = str(error).splitlines()
        why = " ".join(lines[1:3]) or lines[0]
        raise RunError(
            f"{path} is not a calibration of this version of peftlab ({why}); make it anew with: peftlab calibrate "
            "RUN, or remove it"
        ) from error
