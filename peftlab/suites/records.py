"""The committed records of a suite: `<results>/<suite>/<run>.json`, and how a run is known to be recorded."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from peftlab.evaluation.compact_predictions import SUFFIX, compact_predictions, write_compact
from peftlab.runs.environment import versions
from peftlab.runs.files import write_text
from peftlab.runs.folder import now
from peftlab.runs.result import FILE_NAME, Result, result_text
from peftlab.runs.result_parts import EncoderUsed, RecipeUsed, Seconds
from peftlab.suites.orders import PlannedRun, RunKey

SUITE_COPY = "suite.toml"
METRIC_LINES = "metrics.jsonl"
KEPT_STEPS = 100
"""Steps whose loss is committed with a record."""
DONE = ("ok", "validated")
"""Statuses of a run that went to its end."""


def record_path(folder: Path, name: str) -> Path:
    """Return the file of the record `name`."""
    return folder / f"{name}.json"


def read_record(path: Path) -> Result | None:
    """Return the record at `path`; None where there is none, or none that this version reads."""
    try:
        return Result.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def key_of(result: Result) -> RunKey | None:
    """Return the key of the run that `result` is of; None where its rows were never read."""
    if result.data is None:
        return None
    taught = result.distilled.fingerprint if result.distilled is not None else None
    return RunKey(result.recipe.hash, taught_data(result.data.fingerprint, taught), result.versions.get("code", ""))


def taught_data(fingerprint: str, taught: str | None) -> str:
    """Return the key of what a run learns from: its data, and what its teachers are made of where it has any."""
    return fingerprint if taught is None else f"{fingerprint}+{taught}"


def recorded(folder: Path, run: PlannedRun) -> Result | None:
    """Return the record that stands for `run`: done, with the same recipe, data and code; None where it is to be run.

    A scored run also needs its predictions. A failed run is tried again.
    """
    result = read_record(record_path(folder, run.name))
    if result is None or result.status not in DONE or key_of(result) != run.order.key:
        return None
    return result if result.status == "validated" or predictions_path(folder, run.name).is_file() else None


def predictions_path(folder: Path, name: str) -> Path:
    """Return the file of the run's predictions."""
    return folder / f"{name}{SUFFIX}"


def keep(folder: Path, run: PlannedRun, run_folder: Path, otherwise: str) -> Result:
    """Record what the run in `run_folder` came to and return it; predictions first, so that a record has its own.

    A run that ended before it could write a result is recorded as failed, with `otherwise` as its last words.
    """
    path = run_folder / FILE_NAME
    result = read_record(path)
    if result is None:
        return keep_failure(folder, run, otherwise)
    target, lines = predictions_path(folder, run.name), run_folder / METRIC_LINES
    if result.status == "ok":
        write_compact(target, compact_predictions(run_folder))
    else:
        target.unlink(missing_ok=True)
    kept_lines = folder / f"{run.name}.{METRIC_LINES}"
    if lines.is_file() and result.status == "ok":
        write_text(kept_lines, thinned(lines.read_text(encoding="utf-8")))
    else:
        kept_lines.unlink(missing_ok=True)
    write_text(record_path(folder, run.name), path.read_text(encoding="utf-8"))
    return result


def keep_failure(folder: Path, run: PlannedRun, words: str) -> Result:
    """Record a run that has no result of its own as failed, with `words` as the reason, and return the record."""
    predictions_path(folder, run.name).unlink(missing_ok=True)
    (folder / f"{run.name}.{METRIC_LINES}").unlink(missing_ok=True)
    result = _never_written(run, words)
    write_text(record_path(folder, run.name), result_text(result))
    return result


def thinned(lines: str) -> str:
    """Return the metric lines of a run for its learning curve: every validation, and `KEPT_STEPS` steps at most."""
    whole = [line for line in lines.splitlines(keepends=True) if line.endswith("\n")]
    steps = [place for place, line in enumerate(whole) if "validation" not in json.loads(line)]
    every = max(1, math.ceil(len(steps) / KEPT_STEPS))
    left_out = set(steps) - set(steps[::every])
    return "".join(line for place, line in enumerate(whole) if place not in left_out)


def _never_written(run: PlannedRun, last_words: str) -> Result:
    recipe, moment = run.recipe, now()
    return Result(
        status="failed",
        reason=last_words.strip().splitlines()[-1] if last_words.strip() else "the process ended without a word",
        traceback=last_words or None,
        recipe=RecipeUsed(name=recipe.name, hash=run.order.key.recipe),
        task=recipe.task.name,
        method=recipe.method.name,
        encoder=EncoderUsed(requested=recipe.encoder.name if recipe.encoder is not None else None),
        seconds=Seconds(total=0.0, cpu=0.0),
        seeds={"train": recipe.train.seed, "split": recipe.data.split_seed or recipe.train.seed},
        versions=versions() | {"code": run.order.key.code},
        started=moment,
        finished=moment,
    )


def copy_suite(suite_path: Path, folder: Path) -> None:
    """Put a copy of the suite file beside its records, for the report; an equal one is left alone."""
    text = suite_path.read_text(encoding="utf-8-sig")
    target = folder / SUITE_COPY
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        write_text(target, text)


def forget_work(run_folder: Path) -> None:
    """Remove a run folder whose record is all that is wanted of it."""
    shutil.rmtree(run_folder, ignore_errors=True)


def usual_seconds(folder: Path, runs: Iterable[PlannedRun]) -> dict[str, float]:
    """Return the median wall time of an arm's recorded runs, whatever their code, for the arms that have any."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        result = read_record(record_path(folder, run.name))
        if result is not None and result.status in DONE:
            seconds.setdefault(run.arm, []).append(result.seconds.total)
    return {arm: statistics.median(values) for arm, values in seconds.items()}
