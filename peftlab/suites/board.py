"""What a person sees of a suite at work: a table that moves on a terminal, a line a run elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftlab.runs.result import Result
from peftlab.suites.ceilings import above
from peftlab.suites.orders import PlannedRun
from peftlab.suites.suite import Ceilings

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"ok": "green", "validated": "green", "failed": "bold red", "interrupted": "yellow", "running": "cyan"}


@dataclass
class Board:
    """The state of each run, and the clock. `usual`: seconds of a run by arm, where an earlier one was recorded."""

    console: Console
    title: str
    runs: Sequence[PlannedRun]
    usual: dict[str, float]
    jobs: int
    ceilings: Ceilings
    states: dict[str, str] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    live: Any = None

    def kept(self, run: PlannedRun, result: Result) -> None:
        """Show a run that is recorded already."""
        self.states[run.name], self.results[run.name] = "recorded", result

    def begin(self, run: PlannedRun) -> None:
        """Show that a run has started."""
        self.states[run.name], self.started[run.name] = "running", time.monotonic()
        self.draw()

    def end(self, run: PlannedRun, result: Result) -> None:
        """Show what a run came to; outside a terminal as a line of its own."""
        self.states[run.name], self.results[run.name] = result.status, result
        if result.status in ("ok", "validated"):
            self.usual[run.arm] = result.seconds.total
        if self.live is None:
            self.console.print(f"{run.name}: {_outcome(result, self.ceilings)}; {self.left()}", markup=False)
        self.draw()

    def draw(self) -> None:
        """Bring the table on the terminal up to date."""
        if self.live is not None:
            self.live.update(self.table())

    def left(self) -> str:
        """Say how many runs are left, and how long they take by what the arm's earlier runs took."""
        open_runs = [run for run in self.runs if self.states.get(run.name, "running") == "running"]
        if not open_runs:
            return "none left"
        seconds = remaining_seconds(open_runs, self.usual, self.elapsed(), self.jobs)
        return f"{len(open_runs)} left, " + (f"about {clock(seconds)}" if seconds is not None else "no estimate yet")

    def elapsed(self) -> Mapping[str, float]:
        """Return the seconds that each running run has taken."""
        now = time.monotonic()
        return {name: now - since for name, since in self.started.items() if self.states[name] == "running"}

    def table(self) -> Any:
        """Return the table of all runs."""
        from rich.table import Table
        from rich.text import Text

        made = Table("run", "state", "time", "outcome", title=f"{self.title}: {self.left()}", title_justify="left")
        elapsed = self.elapsed()
        for run in self.runs:
            state = self.states.get(run.name, "waiting")
            result = self.results.get(run.name)
            seconds = elapsed.get(run.name, result.seconds.total if result is not None else None)
            made.add_row(
                run.name,
                Text(state, style=_STYLES.get(state, "")),
                clock(seconds) if seconds is not None else "",
                Text(_outcome(result, self.ceilings) if result is not None else ""),
            )
        return made


@contextmanager
def shown(board: Board) -> Iterator[Board]:
    """Show the board while the block runs: on a terminal as a table that moves."""
    from rich.live import Live

    if not board.console.is_terminal or os.environ.get("CI"):
        yield board
        return
    with Live(board.table(), console=board.console, refresh_per_second=4) as board.live:
        yield board
        board.draw()


def remaining_seconds(
    runs: Sequence[PlannedRun], usual: Mapping[str, float], elapsed: Mapping[str, float], jobs: int
) -> float | None:
    """Return the seconds until `runs` are done, `jobs` at a time; None where nothing is known of any arm.

    An arm without a figure of its own counts as the mean of the others.
    """
    if not usual:
        return None
    mean = sum(usual.values()) / len(usual)
    each = [max(0.0, usual.get(run.arm, mean) - elapsed.get(run.name, 0.0)) for run in runs]
    return max(sum(each) / jobs, max(each, default=0.0))


def clock(seconds: float) -> str:
    """Return a duration as people read it: ``7 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _outcome(result: Result, ceilings: Ceilings) -> str:
    """Return a result in a few words: what it scored, or why it did not, and the ceilings that it is above."""
    if result.status in ("failed", "interrupted", "stopped"):
        words = (result.reason or "").splitlines()[0][:100]
        return f"{result.status}: {words}"
    over = above(result, ceilings)
    warning = f"; above the ceiling: {', '.join(over)}" if over else ""
    if "accuracy" in result.metrics.test:
        accuracy = result.metrics.test["accuracy"]
        return f"test accuracy {accuracy.value:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f}){warning}"
    name, value = next(iter(result.metrics.validation.items()))
    return f"validation {name} {value:.4f}{warning}"
