"""What a person sees of a long job: a bar with time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Bar:
    """A job of `total` units under way; `advance` moves it and may change the text beside it."""

    def __init__(self, console: Console, title: str, total: int, *, done: int = 0, shown: bool = True) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not (shown and console.is_terminal and not os.environ.get("CI")),
            transient=True,
        )
        self._task = self._progress.add_task(title, total=total, completed=done, note="")

    def advance(self, units: int = 1, note: str | None = None) -> None:
        """Count `units` more as done."""
        if note is None:
            self._progress.advance(self._task, units)
        else:
            self._progress.update(self._task, advance=units, note=note)

    def start(self) -> None:
        """Begin to draw."""
        self._progress.start()

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()


@contextmanager
def bar(console: Console, title: str, total: int, *, done: int = 0, shown: bool = True) -> Iterator[Bar]:
    """Draw a bar for the time of the block; nothing is drawn in CI, off a terminal, or where `shown` is false."""
    made = Bar(console, title, total, done=done, shown=shown)
    made.start()
    try:
        yield made
    finally:
        made.stop()
