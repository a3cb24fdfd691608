"""The committed records of a suite, as the report reads them: a folder of results, predictions and the suite's file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from peftlab.errors import RunError
from peftlab.evaluation.compact_predictions import SUFFIX, CompactPredictions, read_compact
from peftlab.evaluation.over_seeds import Correct
from peftlab.reports.metric_lines import MetricLines, read_metric_lines
from peftlab.runs.result import Result, read_result_file

SUITE_FILE = "suite.toml"
TUNING_FILE = "tuning/summary.json"
LINES_SUFFIX = ".metrics.jsonl"
_NAME = re.compile(r"(?P<arm>.+?)(?:-s(?P<seed>\d+))?")


@dataclass(frozen=True)
class Asked:
    """What the suite asks, from its `suite.toml`; without one only the title is known, from the folder's name.

    `expected`: names of the runs that the suite is made of. `ceilings`: `trainable_parameters`, `minutes`, `memory_mb`.
    """

    title: str
    target: float | None = None
    margin: float | None = None
    reference: str | None = None
    ceilings: Mapping[str, float] = field(default_factory=dict)
    expected: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """One run: `arm` is its recipe in the suite, `name` the arm and its seed."""

    name: str
    arm: str
    seed: int
    result: Result
    predictions: CompactPredictions | None = None
    lines: MetricLines | None = None

    @property
    def correct(self) -> Correct:
        """Whether each test row was right, shape [rows]; without predictions as many of the first rows as were right.

        The latter lets the seeds of a method be right on the same rows: the widest interval that the figures allow.
        """
        if self.predictions is not None:
            right: Correct = np.array(self.predictions.gold) == np.array(self.predictions.predicted)
            return right
        accuracy = self.result.metrics.test["accuracy"]
        counted: Correct = np.arange(accuracy.n) < round(accuracy.value * accuracy.n)
        return counted


@dataclass(frozen=True)
class SuiteRecords:
    """Everything that a report is made of. `tuning` is the content of `tuning/summary.json`."""

    asked: Asked
    runs: tuple[RunRecord, ...]
    tuning: Mapping[str, Any] | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the suite's runs that have no record."""
        return tuple(name for name in self.asked.expected if name not in {run.name for run in self.runs})


def read_suite_records(folder: Path) -> SuiteRecords:
    """Read the records of a suite, sorted by name; RunError where there are none or one cannot be read."""
    if not folder.is_dir():
        raise RunError(
            f"there is no folder {folder}; name a folder of records, such as benchmarks/results/banking77_recipes"
        )
    runs = tuple(_run(path) for path in sorted(folder.glob("*.json")))
    asked = _asked(folder)
    if not runs:
        raise RunError(f"{folder} holds no records (files *.json); `peftlab bench` writes them")
    for run in runs:
        if run.result.status == "ok" and "accuracy" not in run.result.metrics.test:
            raise RunError(f"{folder / run.name}.json has no test accuracy, by which reports compare")
    tuning = folder / TUNING_FILE
    return SuiteRecords(asked, runs, json.loads(tuning.read_text(encoding="utf-8")) if tuning.is_file() else None)


def _run(path: Path) -> RunRecord:
    result = read_result_file(path)
    named = _NAME.fullmatch(path.stem)
    assert named is not None  # file names are not empty
    seed = int(named["seed"]) if named["seed"] is not None else result.seeds.get("train", 0)
    predictions, lines = (path.with_name(path.stem + suffix) for suffix in (SUFFIX, LINES_SUFFIX))
    kept = read_compact(predictions) if predictions.is_file() and result.status == "ok" else None
    if kept is not None:
        share = sum(map(int.__eq__, kept.gold, kept.predicted)) / max(1, len(kept.gold))
        if abs(share - result.metrics.test["accuracy"].value) > 1e-9:
            raise RunError(f"{predictions} is of another run than {path.name}: its accuracy is {share:.4f}")
    return RunRecord(
        name=path.stem,
        arm=named["arm"],
        seed=seed,
        result=result,
        predictions=kept,
        lines=read_metric_lines(lines) if lines.is_file() else None,
    )


def _asked(folder: Path) -> Asked:
    path = folder / SUITE_FILE
    if not path.is_file():
        return Asked(folder.resolve().name)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        arms = [Path(name).stem for name in values.get("recipes", [])] + list(values.get("methods", []))
        return Asked(
            title=str(values.get("title", folder.resolve().name)),
            target=_number(values.get("target")),
            margin=_number(values.get("margin")),
            reference=Path(values["reference"]).stem if "reference" in values else None,
            ceilings={name: float(limit) for name, limit in sorted(values.get("ceilings", {}).items())},
            expected=tuple(f"{arm}-s{seed}" for arm in arms for seed in values.get("seeds", [])),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} cannot be read as a suite: {error}") from None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
