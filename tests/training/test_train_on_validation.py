"""`data.train_on_validation`: once a recipe is chosen, its validation rows are trained on too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from peftlab import train
from peftlab.runs.result import Result, read_result

ON = "data.train_on_validation=true"


def run_of(recipe: Path, run: Path, *more: str) -> Result:
    assert train.main([str(recipe), f"run.dir={run}", "train.epochs=2", *more]) == 0
    return read_result(run)


def trained(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "trained" / "trained.safetensors")


@pytest.mark.parametrize("method", ["head", "probe"])
def test_all_rows_are_trained_on_and_nothing_is_chosen_by_them(
    method: str, tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are counted as training rows; no validation metric and no best step are claimed; the card says so."""
    run = tmp_path / "run"
    result = run_of(tiny_recipe(method), run, ON)
    assert result.status == "ok"
    assert result.data is not None
    assert result.data.rows == {"train": 84, "test": result.data.rows["test"]}
    assert result.metrics.validation == {}
    assert result.best is None
    assert result.metrics.test["accuracy"].n == result.data.rows["test"]
    assert "the validation rows are trained on too" in capsys.readouterr().err
    assert "trained on the validation rows too" in " ".join((run / "README.md").read_text(encoding="utf-8").split())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] if method == "head" else []
    assert not [line for line in lines if "validation" in line]


def test_the_same_as_a_recipe_whose_training_file_holds_both_splits(
    tiny_recipe: Callable[..., Path], tiny_tickets: Callable[..., Path], tmp_path: Path
) -> None:
    """The last step's weights, bit for bit, of a run on one file with training and validation rows."""
    recipe, tickets = tiny_recipe("head"), tiny_tickets()
    run_of(recipe, tmp_path / "joined", ON)
    both = tmp_path / "both.jsonl"
    both.write_bytes((tickets / "train.jsonl").read_bytes() + (tickets / "validation.jsonl").read_bytes())
    run_of(recipe, tmp_path / "one", f"data.train={both}", "evaluation.metric=nll", "evaluation.every=1000")
    first, second = trained(tmp_path / "joined"), trained(tmp_path / "one")
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_trial_keeps_its_validation_rows_apart(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Learning rates are still chosen on rows that no trial was trained on."""
    recipe = tiny_recipe("head")
    apart = run_of(recipe, tmp_path / "apart", "evaluation.score_test=false")
    trial = run_of(recipe, tmp_path / "trial", "evaluation.score_test=false", ON)
    assert trial.data == apart.data
    assert trial.metrics == apart.metrics


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [("tfidf", (), "calibrated on validation rows"), ("head", ("evaluation.patience=2",), "evaluation.patience stops")],
)
def test_what_chooses_by_validation_is_refused(
    method: str,
    more: tuple[str, ...],
    said: str,
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One sentence before any work, and exit code 2."""
    assert train.main([str(tiny_recipe(method)), f"run.dir={tmp_path / 'run'}", ON, *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
