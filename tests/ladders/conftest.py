"""Tiny ladders on the tiny encoder and tickets; runs within the test process, or made up with a clock of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import MadeUp
from tiny_recipe_text import tiny_recipe_text

from peftlab import train
from peftlab.evaluation.intervals import Interval, wilson
from peftlab.ladders import account, verdict
from peftlab.runs.result import Result, read_result


@pytest.fixture(scope="session")
def write_ladder(tiny_encoder: Callable[..., Path], tiny_tickets: Callable[..., Path]) -> Callable[..., Path]:
    """Return `write(folder, more)`: writes base.toml and tiny.toml, the ladder, whose path it gives."""

    def write(folder: Path, more: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        recipe = tiny_recipe_text(tiny_encoder(), tiny_tickets(), epochs=4)
        (folder / "base.toml").write_text(recipe, encoding="utf-8")
        path = folder / "tiny.toml"
        path.write_text(f'name = "tiny"\ntitle = "Tiny"\nrecipe = "base.toml"\n{more}', encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def template(write_ladder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The result of a real run, from which made-up ones are made."""
    folder = tmp_path_factory.mktemp("template")
    write_ladder(folder, "")
    words = ["train.max_steps=1", "evaluation.score_test=false", "run.trackers=[]"]
    assert train.main([str(folder / "base.toml"), *words, f"run.dir={folder / 'run'}"]) == 0
    return read_result(folder / "run")


@pytest.fixture
def made_up(template: Result, monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    """Made-up runs, their clock, and a test split on which a rung has the accuracy that it has on validation."""
    made = MadeUp(template)

    def score(site: Any, step: Any) -> Interval:
        made.now += made.seconds.get("test", 1.0)
        accuracy = made.accuracies.get("test", step.accuracy.value)
        return wilson(round(accuracy * 2000), 2000)

    monkeypatch.setattr(verdict, "score_once", score)
    monkeypatch.setattr(account, "monotonic", lambda: made.now)
    return made
