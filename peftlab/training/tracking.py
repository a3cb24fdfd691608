"""Trackers by name, through Accelerate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftlab.errors import MissingPackage, UserError

if TYPE_CHECKING:
    from peftlab.recipe.records import Run


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError for a tracker that Accelerate does not know, MissingPackage for one that is not installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise UserError(f"run.trackers: {name!r} is no tracker of Accelerate; there are: {known}")
        if name not in {str(tracker.value) for tracker in get_available_trackers()}:
            raise MissingPackage(f"run.trackers: {name!r} is not installed; run: pip install {name}, or leave it out")


def _untracked(values: Mapping[str, float], step: int) -> None:
    """Tell nobody."""


def start_trackers(
    accelerator: Any, run: Run, settings: Mapping[str, str | float | int]
) -> Callable[[Mapping[str, float], int], None]:
    """Start the trackers of `run`, told these `settings`, and return the function that gives them values at a step."""
    if not run.trackers:
        return _untracked
    accelerator.init_trackers(run.project, config=dict(settings))

    def track(values: Mapping[str, float], step: int) -> None:
        accelerator.log(dict(values), step=step)

    return track
