"""Time left, and what a run cost against the ceilings of its suite."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peftlab.suites.board import clock, remaining_seconds
from peftlab.suites.ceilings import above
from peftlab.suites.records import thinned
from peftlab.suites.suite import Ceilings


def cost(trainable: int = 1000, seconds: float = 60.0, rss: int = 10**9, device: int | None = None) -> Any:
    """Return what of a result the ceilings look at."""
    return SimpleNamespace(
        parameters=SimpleNamespace(trainable=trainable),
        seconds=SimpleNamespace(total=seconds),
        memory=SimpleNamespace(peak_rss_bytes=rss, peak_device_bytes=device),
    )


CEILINGS = Ceilings(trainable_parameters=1000, minutes=1.0, memory_mb=1000.0)


def test_a_run_on_its_ceilings_is_not_above_them() -> None:
    assert above(cost(), CEILINGS) == []
    assert above(cost(10**9, 10**6, 10**12), Ceilings()) == []


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (cost(trainable=1001), "1,001 trainable parameters against 1,000"),
        (cost(seconds=90), "1.5 minutes against 1"),
        (cost(rss=2 * 10**9), "2,000 MB of memory against 1,000"),
        (cost(device=3 * 10**9), "3,000 MB of memory against 1,000"),
    ],
)
def test_each_ceiling_is_told_with_both_figures(run: Any, told: str) -> None:
    assert above(run, CEILINGS) == [told]


def test_metric_lines_are_thinned_to_every_validation_and_some_steps() -> None:
    """The first step stays, and a line that a kill cut short goes."""
    steps = [f'{{"step": {step}, "loss": 1.0}}\n' for step in range(1, 251)]
    kept = thinned("".join([*steps, '{"step": 250, "validation": {"accuracy": 0.5}}\n', '{"step": 2'])).splitlines()
    assert kept[0] == steps[0].rstrip()
    assert len(kept) == 84 + 1
    assert "validation" in kept[-1]


def runs(*arms: str) -> Any:
    """Return planned runs by arm."""
    return [SimpleNamespace(arm=arm, name=f"{arm}-s{place}", path=Path()) for place, arm in enumerate(arms)]


def test_time_left_is_what_each_arm_took_before() -> None:
    """Shared by the jobs, less what has passed; at least the longest single run; an unknown arm counts as the mean."""
    usual = {"head": 10.0, "full": 100.0}
    assert remaining_seconds(runs("head", "head", "full"), usual, {}, 1) == 120
    assert remaining_seconds(runs("head", "head", "full"), usual, {"full-s2": 30.0}, 1) == 90
    assert remaining_seconds(runs("head", "full", "full"), usual, {}, 2) == 105
    assert remaining_seconds(runs("head", "full"), usual, {}, 2) == 100
    assert remaining_seconds(runs("new"), usual, {}, 1) == 55
    assert remaining_seconds(runs("new"), {}, {}, 1) is None


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.2, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (7320, "2 h 02 min")]
)
def test_a_duration_is_told_as_people_read_it(seconds: float, told: str) -> None:
    assert clock(seconds) == told
