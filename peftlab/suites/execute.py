"""Do one order in a process of its own, from its start or from where a kill left it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from peftlab.runs.files import write_json
from peftlab.runs.folder import ENVIRONMENT
from peftlab.runs.model_record import RECIPE
from peftlab.runs.result import FILE_NAME
from peftlab.suites.orders import Order
from peftlab.suites.records import DONE, read_record
from peftlab.training.placement import THREADS_VARIABLE

POLL_SECONDS = 0.05
GRACE_SECONDS = 60.0
"""How long a run may take to save its state when it is asked to stop."""
LAST_WORDS = 4000
"""Characters of a run's output that are kept where it ended without a result."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (minus the signal that killed it), its last words, whether it was stopped."""

    code: int
    last_words: str
    stopped: bool


def never() -> bool:
    """Say that nobody asks to stop."""
    return False


def execute(order: Order, work: Path, threads: int | None, stop: Callable[[], bool] = never) -> Ended:
    """Run the order as `python -m peftlab.train` in ``work/<name>``; its output goes to ``work/<name>.log``.

    A run that is finished there is left as it is; one that was interrupted, by a signal or a kill, continues from its
    last checkpoint; one that failed, or whose recipe, data or code was another, starts anew. When `stop()` becomes
    true the process is asked to save its state and end. `threads`: its CPU threads; None: as the machine gives them.
    """
    folder = work / order.name
    _end_leftover(_note(work, order))
    if not _may_go_on(order, work, folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif (result := read_record(folder / FILE_NAME)) is not None and result.status in DONE:
        return Ended(0, "", stopped=False)
    work.mkdir(parents=True, exist_ok=True)
    log = work / f"{order.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(order, folder),
            cwd=order.cwd,
            env=environment(threads),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the bench alone, which passes it on once
        )
        stopped = False
        try:
            _write_note(_note(work, order), order, process.pid)
            stopped = _wait(process, stop)
        finally:
            if process.poll() is None:
                _end(psutil.Process(process.pid))
                process.wait()
    words = log.read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:]
    return Ended(process.returncode, words + _killed_by(process.returncode), stopped)


def command(order: Order, folder: Path) -> list[str]:
    """Return the words that start the run."""
    words = [sys.executable, "-m", order.program, order.recipe, *order.overrides]
    return [*words, f"run.dir={folder}", "train.resume=auto"]


def environment(threads: int | None) -> dict[str, str]:
    """Return the environment of a run that may use `threads` CPU threads."""
    own = dict(os.environ)
    if threads is not None:
        names = (THREADS_VARIABLE, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        own |= dict.fromkeys(names, str(threads))
    return own


def _wait(process: subprocess.Popen[bytes], stop: Callable[[], bool]) -> bool:
    """Wait for the process; say whether it was asked to stop on the way."""
    asked_at: float | None = None
    while process.poll() is None:
        if asked_at is None and stop():
            asked_at = time.monotonic()
            process.send_signal(signal.SIGINT)
        if asked_at is not None and time.monotonic() - asked_at > GRACE_SECONDS:
            process.kill()
        time.sleep(POLL_SECONDS)
    return asked_at is not None


def _killed_by(code: int) -> str:
    return f"\nthe process was killed by {signal.Signals(-code).name}" if code < 0 else ""


# What is known of a run that an earlier bench started -------------------------------------------------------------


def _note(work: Path, order: Order) -> Path:
    return work / f"{order.name}.started.json"


def _write_note(path: Path, order: Order, pid: int) -> None:
    try:
        created = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        created = 0.0
    write_json(path, {"key": order.key.to_dict(), "pid": pid, "created": created})


def _read_note(path: Path) -> Mapping[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _may_go_on(order: Order, work: Path, folder: Path) -> bool:
    """Say whether what is in `folder` is this very run, begun and not failed."""
    if _read_note(_note(work, order)).get("key") != order.key.to_dict():
        return False
    if not (folder / RECIPE).is_file() or not (folder / ENVIRONMENT).is_file():
        return False
    result = read_record(folder / FILE_NAME)
    return result is None or result.status != "failed"


def _end_leftover(note: Path) -> None:
    """End the process of a bench that was killed, which still works in the folder; its state is saved first."""
    known = _read_note(note)
    pid, created = known.get("pid"), known.get("created")
    if not isinstance(pid, int) or not isinstance(created, float):
        return
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 1.0:
            _end(process)
    except psutil.NoSuchProcess:
        return


def _end(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGTERM)
        process.wait(GRACE_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
    except psutil.NoSuchProcess:
        return
