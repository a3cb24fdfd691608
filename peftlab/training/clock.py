"""The wall time of a run against the minutes that its recipe allows."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """`started`: `time.perf_counter()` when this sitting began; `earlier`: seconds of former sittings."""

    started: float
    earlier: float = 0.0
    minutes: float | None = None

    def spent(self) -> float:
        """Return the seconds that the run has taken so far, all sittings together."""
        return time.perf_counter() - self.started + self.earlier

    def left(self) -> float:
        """Return the seconds until the ceiling; infinity where there is none."""
        return math.inf if self.minutes is None else 60 * self.minutes - self.spent()
