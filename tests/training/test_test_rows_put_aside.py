"""`evaluation.score_test = false`: a trial never sees a test row, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab import train
from peftlab.cli import main
from peftlab.runs.code import code_hash
from peftlab.runs.result import Result, read_result


def trial(recipe: Path, run: Path) -> Result:
    """Train without the test rows; return the result."""
    assert train.main([str(recipe), f"run.dir={run}", "evaluation.score_test=false", "evaluation.target=0.9"]) == 0
    return read_result(run)


@pytest.mark.parametrize("method", ["head", "probe", "tfidf"])
def test_a_run_without_its_test_rows_is_validated_and_holds_no_test_figure(
    method: str, tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No metric, no prediction, no verdict, no card; the proof of what was saved is made on validation rows."""
    run = tmp_path / "run"
    result = trial(tiny_recipe(method), run)
    assert result.status == "validated"
    assert result.metrics.validation["accuracy"] > 0
    assert (result.metrics.test, result.scores, result.target) == ({}, None, None)
    assert result.data is not None
    assert result.data.rows == {"train": 60, "validation": 24}
    assert result.round_trip is not None
    assert result.round_trip.rows == 24
    assert result.versions["code"] == code_hash(method, "classification")
    assert not {"predictions.jsonl", "README.md"} & {path.name for path in run.iterdir()}
    assert "test not scored" in capsys.readouterr().err
    assert main(["show", str(run)]) == 0
    assert "validated" in capsys.readouterr().out


def test_other_test_rows_leave_a_trial_as_it_is(
    tiny_recipe: Callable[..., Path], tiny_tickets: Callable[..., Path], tmp_path: Path
) -> None:
    """The same figures with test labels turned round; only the fingerprint of the data knows of it."""
    tickets = tiny_tickets()
    turned = (tickets / "test.jsonl").read_text(encoding="utf-8").replace("logistics", "payment")
    (tmp_path / "turned.jsonl").write_text(turned, encoding="utf-8")
    recipe = tiny_recipe("head")
    first = trial(recipe, tmp_path / "first")
    text = recipe.read_text(encoding="utf-8").replace(str(tickets / "test.jsonl"), str(tmp_path / "turned.jsonl"))
    recipe.write_text(text, encoding="utf-8")
    second = trial(recipe, tmp_path / "second")
    assert second.metrics == first.metrics
    assert second.best == first.best
    assert (tmp_path / "first" / "trained" / "trained.safetensors").read_bytes() == (
        tmp_path / "second" / "trained" / "trained.safetensors"
    ).read_bytes()
    assert first.data is not None
    assert second.data is not None
    assert second.data.fingerprint != first.data.fingerprint
