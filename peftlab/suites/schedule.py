"""Do many orders at once on this machine, telling of each as it starts and ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peftlab.errors import Interrupted, RunError
from peftlab.suites.execute import Ended, execute
from peftlab.suites.orders import PlannedRun
from peftlab.training.signals import StopWish, stop_on_signals

TICK_SECONDS = 0.25


@dataclass(frozen=True)
class Event:
    """A run that `started` or `ended` (then with how), or a `tick`, so that a clock on the screen goes on."""

    kind: str
    run: PlannedRun | None = None
    ended: Ended | None = None
    seconds: float = 0.0


Events = Iterator[Event]
RunAll = Callable[[Sequence[PlannedRun], Path], Events]
"""Does all runs in a work folder and yields what happens; raises Interrupted once all have saved their state."""
Execute = Callable[..., Ended]


def on_this_machine(jobs: int, threads: int | None, do: Execute = execute) -> RunAll:
    """Return what does runs here, `jobs` at a time, with `threads` CPU threads each."""

    def run_all(runs: Sequence[PlannedRun], work: Path) -> Events:
        with stop_on_signals() as wish, ThreadPoolExecutor(jobs) as pool:
            started: dict[Future[Ended], tuple[PlannedRun, float]] = {}
            waiting = list(runs)
            while waiting or started:
                while waiting and len(started) < jobs and not wish.asked():
                    run = waiting.pop(0)
                    future = pool.submit(do, run.order, work, threads, wish.asked)
                    started[future] = (run, time.monotonic())
                    yield Event("started", run)
                done, _ = wait(started, timeout=TICK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    run, since = started.pop(future)
                    yield Event("ended", run, future.result(), time.monotonic() - since)
                if wish.asked() and not started:
                    raise stopped(wish)
                yield Event("tick")

    return run_all


def stopped(wish: StopWish) -> Interrupted:
    """Return what ends a bench that was asked to stop."""
    return Interrupted(wish.signal_number, "stopped; the same command continues where it was")


@contextmanager
def alone_in(work: Path) -> Iterator[None]:
    """Hold the work folder for this process; RunError where another bench is at work in it.

    The lock goes with the process, however it ends.
    """
    import fcntl

    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"another peftlab bench is at work in {work}; wait for it, or name another folder with --runs"
            ) from None
        yield
