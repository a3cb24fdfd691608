"""`peftlab show` finds a run by path or by name and prints what it measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab.cli import main
from peftlab.errors import RunError
from peftlab.show import run_folder


def test_a_run_is_found_by_its_path_or_by_its_name_in_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "lora").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert run_folder("lora") == Path("runs/lora")
    assert run_folder("runs/lora") == Path("runs/lora")
    assert run_folder(str(tmp_path / "runs" / "lora")) == tmp_path / "runs" / "lora"
    with pytest.raises(RunError, match="there is no run folder lara"):
        run_folder("lara")


def test_a_folder_that_is_no_finished_run_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{tmp_path} has no result.json" in captured.err


def test_a_finished_run_is_shown_as_text_and_as_its_result_file(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(tiny_recipe("tfidf")), f"run.dir={run}"]) == 0
    capsys.readouterr()
    assert main(["show", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "ok" in shown
    assert "accuracy" in shown
    assert main(["show", str(run), "--json"]) == 0
    assert capsys.readouterr().out == (run / "result.json").read_text(encoding="utf-8")
