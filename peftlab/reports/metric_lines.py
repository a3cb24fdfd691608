"""Reads `metrics.jsonl`: what the training loop noted after each optimizer step and each validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peftlab.errors import RunError

FILE_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class TrainingStep:
    """One optimizer step: its number, the epochs trained by then, mean loss of its rows, and its learning rate."""

    step: int
    epoch: float
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Validation:
    """One validation: after which step, the epochs trained by then, and its metrics by name."""

    step: int
    epoch: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class MetricLines:
    """Both kinds of lines, in the order of the file."""

    steps: tuple[TrainingStep, ...]
    validations: tuple[Validation, ...]


def read_metric_lines(path: Path) -> MetricLines:
    """Read a run's metric lines; RunError where the file is missing or a line is not one of ours.

    A line with `validation` is a validation, every other one a step; further keys are passed over. A last line that
    a kill cut short is passed over too.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist: no training step was noted")
    steps: list[TrainingStep] = []
    validations: list[Validation] = []
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    whole = lines if text.endswith("\n") else lines[:-1]
    for number, line in enumerate(whole, start=1):
        try:
            values = json.loads(line)
            step, epoch = int(values["step"]), float(values["epoch"])
            if "validation" in values:
                validations.append(Validation(step, epoch, {k: float(v) for k, v in values["validation"].items()}))
            else:
                steps.append(TrainingStep(step, epoch, float(values["loss"]), float(values["learning_rate"])))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RunError(
                f"{path}:{number}: expected an object with step, epoch, and loss and learning_rate or validation"
            ) from None
    return MetricLines(tuple(steps), tuple(validations))
