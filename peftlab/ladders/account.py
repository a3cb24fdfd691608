"""What a search has spent of its minutes, over all its sittings, and what must be kept back for its verdict."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from peftlab.runs.files import write_json

STATE = "search.state.json"
EVERY_SECONDS = 1.0
"""How often the time spent is written down; a kill loses as much at most."""


def _now() -> float:
    return monotonic()


@dataclass
class Account:
    """The clock of one search. `key` says of which: another ladder, or other code, begins anew.

    `shares`: seconds that each rung was given when it was begun. `kept_back`: seconds for the verdict.
    `given_up`: why a rung's pretraining was given up, by rung: another sitting does not give it more time.
    `worked`: whether a run was done in this sitting, not only read from its record.
    """

    path: Path
    key: str
    minutes: float | None
    earlier: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    kept_back: float = 0.0
    worked: bool = False
    _started: float = field(default_factory=_now)
    _written: float = 0.0

    def spent(self) -> float:
        """Return the seconds spent so far."""
        return self.earlier + monotonic() - self._started

    def left(self) -> float:
        """Return the seconds that trials may still take; infinity without a ceiling."""
        return math.inf if self.minutes is None else 60 * self.minutes - self.spent() - self.kept_back

    def share_of(self, rung: str, rungs_left: int) -> float:
        """Return the seconds that a rung may take for its trials: an equal part of what was left when it was begun."""
        if rung not in self.shares:
            left = self.left()
            self.shares[rung] = left / max(1, rungs_left) if math.isfinite(left) else -1.0
            self.write()
        return self.shares[rung] if self.shares[rung] >= 0 else math.inf

    def keep_back(self, seconds: float) -> None:
        """Keep at least `seconds` for the verdict, and never more than half of all minutes."""
        most = math.inf if self.minutes is None else 30 * self.minutes
        self.kept_back = max(self.kept_back, min(seconds, most))

    def tick(self) -> None:
        """Write down what is spent, now and then."""
        if monotonic() - self._written > EVERY_SECONDS:
            self.write()

    def write(self) -> None:
        """Write down what is spent."""
        self._written = monotonic()
        kept = {"key": self.key, "spent": self.spent(), "shares": self.shares, "given_up": self.given_up}
        write_json(self.path, kept)


def open_account(work: Path, key: str, minutes: float | None) -> Account:
    """Return the account of the search in the folder `work`, going on where an earlier sitting of it was."""
    path = work / STATE
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if known.get("key") != key:
        return Account(path, key, minutes)
    return Account(path, key, minutes, float(known["spent"]), dict(known["shares"]), dict(known.get("given_up", {})))
