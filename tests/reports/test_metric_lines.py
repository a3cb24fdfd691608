"""The reader of `metrics.jsonl`."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftlab.errors import RunError
from peftlab.reports.metric_lines import TrainingStep, Validation, read_metric_lines

STEP = '{"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.001, "gradient_norm": 3.0, "rows": 8}\n'
VALIDATION = '{"step": 1, "epoch": 0.5, "validation": {"accuracy": 0.25}, "best": true, "seconds": 0.1}\n'


def test_steps_and_validations_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(STEP + VALIDATION, encoding="utf-8")
    lines = read_metric_lines(path)
    assert lines.steps == (TrainingStep(1, 0.5, 2.0, 0.001),)
    assert lines.validations == (Validation(1, 0.5, {"accuracy": 0.25}),)


def test_a_last_line_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(STEP + VALIDATION[:20], encoding="utf-8")
    assert len(read_metric_lines(path).steps) == 1
    assert read_metric_lines(path).validations == ()


@pytest.mark.parametrize("line", ["{\n", "7\n", '{"step": 1}\n', '{"step": 1, "epoch": 1, "validation": 3}\n'])
def test_a_broken_line_is_said_with_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(STEP + line, encoding="utf-8")
    with pytest.raises(RunError, match=r"metrics\.jsonl:2: expected an object with step"):
        read_metric_lines(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        read_metric_lines(tmp_path / "metrics.jsonl")
