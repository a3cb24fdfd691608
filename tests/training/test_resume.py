"""Kill -9 at any step, continue, and end in the same bits."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from killing import finish, fork_server, kept_lines, kill_at, start_program, steps_written

from peftlab.runs.result import read_result


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Return where child processes come from."""
    return fork_server()


def trained_bytes(run: Path) -> dict[str, bytes]:
    """Return the files of the trained part."""
    return {path.name: path.read_bytes() for path in sorted((run / "trained").iterdir())}


# Dropout, an evaluation between checkpoints, patience and a short last group: all must continue where they were.
SECTIONS = "checkpoint_every = 3\n\n[evaluation]\nevery = 7\npatience = 50\n\n[head]\ndropout = 0.2"


# AdaLoRA takes ranks away in steps 20 to 54 of 108: it is killed once before, once within and once after them.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "windows"),
    [("lora", None), ("full", None), ("bottleneck", None), ("adalora", ((4, 9), (21, 48), (56, 99)))],
)
def test_a_run_killed_at_three_random_steps_ends_in_the_same_bits(
    method: str,
    windows: tuple[tuple[int, int], ...] | None,
    processes: ForkServerContext,
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """SIGKILL three times, `--resume` each time: weights, metric lines and predictions equal those of a whole run."""
    recipe = str(tiny_recipe(method, sections=SECTIONS))
    epochs = 6 if windows is None else 12
    settings = [f"train.epochs={epochs}", "train.batch_size=7"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(processes, [recipe, *settings, f"run.dir={whole}"], tmp_path)
    total = steps_written(whole)

    assert total == epochs * 9
    places = sorted(random.sample(range(4, total - 8), 3))
    if windows is not None:
        places = [random.randint(*window) for window in windows]
    kill_at(processes, [recipe, *settings, f"run.dir={killed}"], killed, places[0])
    for step in places[1:]:
        kill_at(processes, ["--resume", str(killed)], killed, step)
    finish(processes, ["--resume", str(killed)], tmp_path)

    assert trained_bytes(whole) == trained_bytes(killed), f"killed after steps {places}"
    assert (whole / "predictions.jsonl").read_bytes() == (killed / "predictions.jsonl").read_bytes()
    assert read_result(killed).status == "ok"
    assert read_result(killed).best == read_result(whole).best
    assert kept_lines(whole) == kept_lines(killed), "every step stands once, with the same loss to the last digit"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    number: signal.Signals,
    code: int,
    processes: ForkServerContext,
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Exit code 128 + signal, status interrupted, a checkpoint at that very step, and a run that continues."""
    recipe, run = str(tiny_recipe("lora")), tmp_path / "run"
    arguments = [recipe, "train.epochs=200", f"run.dir={run}"]
    child = processes.Process(target=start_program, args=("peftlab.train", arguments, str(tmp_path / "log.txt")))
    child.start()
    while steps_written(run) < 3 and child.is_alive():
        time.sleep(0.002)
    assert child.pid is not None
    os.kill(child.pid, number)
    child.join(60)

    assert child.exitcode == code
    result = read_result(run)
    assert result.status == "interrupted"
    assert result.reason is not None
    assert "peftlab train --resume" in result.reason
    assert (run / "checkpoints" / f"step-{steps_written(run)}").is_dir()
    assert str(run) in (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines(), "scripts read the folder"
