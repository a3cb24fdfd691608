"""Arms in processes of their own, one after another or in turns step by step: none has another's memory or moment."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from peftlab.runs.environment import peak_resident_bytes

WARM_UP = 3
_LAST_WORDS = 2000


@dataclass(frozen=True)
class Turns:
    """Wall and CPU seconds of each arm's steps, and the peak resident bytes of its process at the end."""

    seconds: dict[str, dict[str, list[float]]]
    peak: dict[str, int]


def alone(words: Sequence[str], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Start this script again with `words`, in `env` or as this process was started; return the JSON that it ends on.

    Raises RuntimeError, with its last words, where it fails.
    """
    line = [sys.executable, sys.argv[0], *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} ended: {done.stderr[-_LAST_WORDS:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def serve(steps: Iterator[object]) -> None:
    """Take a step for every line of standard input, and print its wall and CPU seconds and the peak so far."""
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        next(steps)
        spent = [time.perf_counter() - wall, time.process_time() - cpu]
        print(json.dumps([*spent, peak_resident_bytes()]), flush=True)


def take_turns(arms: Mapping[str, Sequence[str]], rounds: int) -> Turns:
    """Start this script again with the words of each arm; return the figures of `rounds` steps after the warm-up.

    Raises RuntimeError, with its last words, where an arm ends on the way.
    """
    seconds: dict[str, dict[str, list[float]]] = {arm: {"wall": [], "cpu": []} for arm in arms}
    peak = dict.fromkeys(arms, 0)
    with ExitStack() as stack:
        children = {arm: stack.enter_context(_child(words)) for arm, words in arms.items()}
        for arm, child in children.items():
            for _ in range(WARM_UP):
                _step(arm, child)
        for _ in range(rounds):
            for arm, child in children.items():
                wall, cpu, peak[arm] = _step(arm, child)
                seconds[arm]["wall"].append(wall)
                seconds[arm]["cpu"].append(cpu)
    return Turns(seconds, peak)


@contextmanager
def _child(words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start this script again with `words`, to be spoken to; it is ended whatever happens."""
    line = [sys.executable, sys.argv[0], *words]
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _step(arm: str, child: subprocess.Popen[str]) -> tuple[float, float, int]:
    """Let one arm take a step while the others wait."""
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise AssertionError("an arm is spoken to through pipes")
    with suppress(BrokenPipeError):
        child.stdin.write("step\n")
        child.stdin.flush()
    answer = child.stdout.readline()
    if not answer:
        raise RuntimeError(f"{arm} ended: {child.stderr.read()[-_LAST_WORDS:]}")
    wall, cpu, peak = json.loads(answer)
    return wall, cpu, peak
