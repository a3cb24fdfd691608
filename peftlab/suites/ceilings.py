"""What a run cost, held against the ceilings of its suite."""

from __future__ import annotations

from peftlab.runs.result import Result
from peftlab.suites.suite import Ceilings


def above(result: Result, ceilings: Ceilings) -> list[str]:
    """Return each ceiling that the run is above, with both figures; a figure that was not recorded counts as above."""
    found = []
    if ceilings.trainable_parameters is not None:
        count = result.parameters.trainable if result.parameters is not None else None
        if count is None or count > ceilings.trainable_parameters:
            shown = f"{count:,}" if count is not None else "an unknown number of"
            found.append(f"{shown} trainable parameters against {ceilings.trainable_parameters:,}")
    if ceilings.minutes is not None and result.seconds.total > 60 * ceilings.minutes:
        found.append(f"{result.seconds.total / 60:.1f} minutes against {ceilings.minutes:g}")
    if ceilings.memory_mb is not None:
        peaks = [result.memory.peak_rss_bytes, result.memory.peak_device_bytes]
        peak = max((value for value in peaks if value is not None), default=None)
        if peak is None or peak > 1e6 * ceilings.memory_mb:
            shown = f"{peak / 1e6:,.0f}" if peak is not None else "an unknown number of"
            found.append(f"{shown} MB of memory against {ceilings.memory_mb:,g}")
    return found
