"""Where a search is at work, and what a rung came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from peftlab.errors import Interrupted
from peftlab.evaluation.intervals import Interval
from peftlab.ladders.account import Account
from peftlab.ladders.ladder import Ladder, Rung
from peftlab.ladders.trials import Do, Tried
from peftlab.suites.plan import Inputs
from peftlab.training.signals import StopWish

if TYPE_CHECKING:
    from rich.console import Console

RungState = Literal["climbed", "left out", "not begun"]


@dataclass(frozen=True)
class Step:
    """One rung as it was climbed, or why it was not.

    `accuracy`: of the chosen run on validation. `gain`: what it added to the best rung before it, paired by row.
    """

    rung: Rung
    state: RungState
    reason: str | None = None
    trials: tuple[Tried, ...] = ()
    chosen: Tried | None = None
    accuracy: Interval | None = None
    gain: Interval | None = None

    @property
    def seconds(self) -> float:
        """Wall time of all its trials."""
        return sum(one.seconds for one in self.trials)


@dataclass
class Site:
    """Where a search is at work. `do` does one run; `wish` is the signal that asks to stop."""

    ladder: Ladder
    recipe: Path
    records: Path
    work: Path
    account: Account
    do: Do
    wish: StopWish
    console: Console
    threads: int | None = None
    inputs: Inputs = field(default_factory=Inputs)


def end_if_asked(site: Site) -> None:
    """Write down what is spent and raise Interrupted where a signal asked to stop."""
    if site.wish.asked():
        site.account.write()
        raise Interrupted(site.wish.signal_number, "stopped; the same command continues where it was")
