"""Run a program of peftlab in a child process, kill it at a step, and run it to its end."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

PRELOADED = ["peftlab.train", "peftlab.training.job", "torch", "peft", "evaluate", "transformers"]


def fork_server() -> ForkServerContext:
    """Return a context whose children start with the libraries already imported, each a clean process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start_program(program: str, arguments: list[str], log: str) -> None:
    """Run in a child process: the `main` of the module `program`, its words going to `log`."""
    main = importlib.import_module(program).main
    with Path(log).open("a", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        code = main(arguments)
        file.flush()
    os._exit(code)


def steps_written(run: Path) -> int:
    """Return the last step in the run's metric lines."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def kill_at(
    context: ForkServerContext, arguments: list[str], run: Path, step: int, *, program: str = "peftlab.train"
) -> None:
    """Start the program and send SIGKILL as soon as `step` is written."""
    child = context.Process(target=start_program, args=(program, arguments, str(run.parent / "log.txt")))
    child.start()
    deadline = time.monotonic() + 240
    while steps_written(run) < step:
        assert child.is_alive(), (run.parent / "log.txt").read_text(encoding="utf-8")
        assert time.monotonic() < deadline, "training made no progress"
        time.sleep(0.002)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def finish(context: ForkServerContext, arguments: list[str], folder: Path, *, program: str = "peftlab.train") -> None:
    """Run the program to its end."""
    child = context.Process(target=start_program, args=(program, arguments, str(folder / "log.txt")))
    child.start()
    child.join(240)

    assert child.exitcode == 0, (folder / "log.txt").read_text(encoding="utf-8")


def kept_lines(run: Path) -> list[dict[str, object]]:
    """Return the run's metric lines without what a clock says."""
    kept = ("step", "loss", "learning_rate", "gradient_norm", "validation")
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    return [{key: value for key, value in json.loads(line).items() if key in kept} for line in text.splitlines()]
