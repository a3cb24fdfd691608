"""`peftlab bench` on a tiny suite: each run a process, each recorded, none of them twice."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from killing import fork_server, start_program

from peftlab import bench
from peftlab.runs.result import read_result
from peftlab.suites import execute, plan
from peftlab.suites.records import read_record

ARMS = 'methods = ["tfidf", "head"]\nseeds = [3]\nreference = "head"\n'
NAMES = ["tfidf-s3", "head-s3"]
# fp16 is refused on a CPU, but only once the process looks at its device.
BROKEN = 'methods = ["head", "lora"]\nseeds = [0]\n[per_recipe]\nlora = ["train.precision=fp16"]\n'

# Long enough to be caught at work.
LONG = 'methods = ["head"]\nseeds = [0]\noverrides = ["train.epochs=150"]\n'

WriteSuite = Callable[..., Path]


@dataclass(frozen=True)
class Done:
    """A suite that was run: its file, its folders, and what was printed with --json."""

    suite: Path
    folder: Path
    code: int
    summary: dict[str, Any]

    @property
    def records(self) -> Path:
        """Return the folder of the records."""
        return self.folder / "results" / "tiny"


def words(suite: Path, folder: Path, *more: str) -> list[str]:
    """Return the command line for a suite kept in `folder`."""
    return [str(suite), "--results", str(folder / "results"), "--runs", str(folder / "runs"), *more]


def run(suite: Path, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> Done:
    """Run a suite; return what came of it."""
    capsys.readouterr()
    code = bench.main(words(suite, folder, "--json", *more))
    return Done(suite, folder, code, json.loads(capsys.readouterr().out))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def metrics(folder: Path) -> dict[str, Any]:
    """Return validation and test metrics of each record."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8"))["metrics"] for path in folder.glob("*-s?.json")}


def wait_for_checkpoint(folder: Path, alive: Callable[[], bool]) -> None:
    """Wait until the run head-s0 has saved a state."""
    checkpoints = folder / "runs" / "tiny" / "head-s0" / "checkpoints"
    deadline = time.monotonic() + 120
    while not (checkpoints.is_dir() and len(list(checkpoints.iterdir())) > 1):
        assert alive()
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def sequential(tmp_path_factory: pytest.TempPathFactory, write_suite: WriteSuite) -> Done:
    """The suite of tfidf and head, one run after the other."""
    folder = tmp_path_factory.mktemp("sequential")
    suite = write_suite(folder, ARMS)
    with redirect_stdout(io.StringIO()) as said:
        code = bench.main(words(suite, folder, "--json"))
    return Done(suite, folder, code, json.loads(said.getvalue()))


@pytest.mark.slow
def test_every_recipe_is_recorded_with_every_seed(sequential: Done) -> None:
    """A record, its predictions and a copy of the suite; no run folder among them."""
    assert sequential.code == 0
    assert [line["name"] for line in sequential.summary["runs"]] == NAMES
    assert {line["status"] for line in sequential.summary["runs"]} == {"ok"}
    files = {name for name in contents(sequential.records) if not re.search(r"REPORT|svg|png", name)}
    wanted = {f"{name}.{ending}" for name in NAMES for ending in ("json", "predictions.json.gz")}
    assert (sequential.records / "REPORT.md").is_file()
    assert files == wanted | {"head-s3.metrics.jsonl", "suite.toml"}
    assert (sequential.records / "suite.toml").read_bytes() == sequential.suite.read_bytes()
    for name in NAMES:
        record = read_record(sequential.records / f"{name}.json")
        assert record is not None
        assert (record.recipe.name, record.seeds["train"]) == (name[:-3], int(name[-1]))
        assert record.metrics.test["accuracy"].n == 24
        assert read_result(sequential.folder / "runs" / "tiny" / name) == record


@pytest.mark.slow
def test_a_second_time_nothing_is_run_and_no_byte_changes(
    sequential: Done, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    before = contents(sequential.records)
    again = run(sequential.suite, sequential.folder, capsys)
    assert again.code == 0
    assert all(line["recorded_before"] for line in again.summary["runs"])
    assert contents(sequential.records) == before


@pytest.mark.slow
def test_two_jobs_give_the_same_metrics_as_one(
    sequential: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = run(sequential.suite, tmp_path, capsys, "--jobs", "2")
    assert both.code == 0
    assert sorted(metrics(both.records)) == sorted(NAMES)
    assert metrics(both.records) == metrics(sequential.records)


@pytest.mark.slow
def test_other_code_another_recipe_and_another_seed_are_to_run_again(
    sequential: Done, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the plan says, which estimates by what the recorded runs took."""

    def states(suite: Path) -> dict[str, str]:
        shown = run(suite, sequential.folder, capsys, "--dry-run")
        assert shown.summary["estimated_seconds"] is not None
        return {line["name"]: line["state"] for line in shown.summary["runs"]}

    assert states(sequential.suite) == dict.fromkeys(NAMES, "recorded")
    folder = sequential.folder / "other"
    assert set(states(write_suite(folder, ARMS + 'overrides = ["data.train_rows=50"]')).values()) == {"to run"}
    assert states(write_suite(folder, ARMS.replace("[3]", "[3, 4]"))) == {
        "tfidf-s3": "recorded",
        "tfidf-s4": "to run",
        "head-s3": "recorded",
        "head-s4": "to run",
    }
    real = plan.code_hash

    def changed(method: str, task: str, **more: Any) -> str:
        return real(method, task, **more) if method == "tfidf" else "changed"

    monkeypatch.setattr(plan, "code_hash", changed)
    assert states(sequential.suite) == {"tfidf-s3": "recorded", "head-s3": "to run"}


@pytest.mark.slow
def test_a_failure_is_recorded_and_the_rest_goes_on(
    tmp_path: Path, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refusal of the run by its sentence, a crash by its traceback; exit code 1."""
    suite = write_suite(tmp_path, BROKEN)

    def crash(order: Any, folder: Path) -> list[str]:
        if order.name == "head-s0":
            return [sys.executable, "-c", "def f():\n    raise MemoryError('no room')\nf()"]
        return command(order, folder)

    command = execute.command
    monkeypatch.setattr(execute, "command", crash)
    failed = run(suite, tmp_path, capsys)
    assert (failed.code, failed.summary["failed"]) == (1, 2)
    crashed = read_record(failed.records / "head-s0.json")
    assert crashed is not None
    assert crashed.reason == "MemoryError: no room"
    assert "Traceback (most recent call last)" in (crashed.traceback or "")
    refused = read_record(failed.records / "lora-s0.json")
    assert refused is not None
    assert "'fp16' needs a GPU" in (refused.reason or "")
    assert not list(failed.records.glob("*.predictions.json.gz"))


@pytest.mark.slow
def test_a_suite_that_was_killed_goes_on_where_it_was(
    tmp_path: Path, write_suite: WriteSuite, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process that a killed bench leaves behind is ended first; its run continues from its checkpoint."""
    suite = write_suite(tmp_path, LONG)
    arguments = ("peftlab.bench", words(suite, tmp_path), str(tmp_path / "log.txt"))
    process = fork_server().Process(target=start_program, args=arguments)
    process.start()
    wait_for_checkpoint(tmp_path, process.is_alive)
    process.kill()
    process.join()
    assert not (tmp_path / "results" / "tiny" / "head-s0.json").exists()
    on = run(suite, tmp_path, capsys)
    assert [line["status"] for line in on.summary["runs"]] == ["ok"]
    log = (tmp_path / "runs" / "tiny" / "head-s0.log").read_text(encoding="utf-8")
    assert "continuing after step" in log


@pytest.mark.slow
def test_ctrl_c_saves_the_state_of_what_runs_and_ends_with_130(
    tmp_path: Path, write_suite: WriteSuite, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run at work ends by itself, checkpoint written; nothing is recorded."""
    suite = write_suite(tmp_path, LONG)

    def press() -> None:
        wait_for_checkpoint(tmp_path, lambda: True)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    code = bench.main(words(suite, tmp_path))
    thread.join()
    assert code == 130
    assert "the same command continues where it was" in capsys.readouterr().err
    run_folder = tmp_path / "runs" / "tiny" / "head-s0"
    assert read_result(run_folder).status == "interrupted"
    assert list((run_folder / "checkpoints").iterdir())
    assert not list((tmp_path / "results" / "tiny").glob("*-s?.json"))
