"""The ceilings of a recipe beyond counts: held against the plan, watched while training, checked in what came out.

Counts of parameters and bytes are known once the model is built; see `prepare.check_budget`. Memory, minutes and
latency are estimated from the model at hand before a step is spent, and measured in the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.errors import BudgetError, TimeSpent
from peftlab.evaluation.forward import Passes
from peftlab.runs.environment import peak_resident_bytes
from peftlab.runs.result_parts import Ceiling
from peftlab.training.clock import Clock

if TYPE_CHECKING:
    import torch

    from peftlab.recipe.records import Budget, Recipe
    from peftlab.runs.result_parts import Memory, Parameters
    from peftlab.training.prepare import Found, Model

TEXTS, PASSES = 20, 3
"""Texts that the latency is measured on, and the passes over them of which it is the median."""
MARGIN = 1.3
"""What the time that is kept for the end of a run is multiplied with: forward passes do not all take equally long."""


def latency_of(one_by_one: Callable[[], object], texts: int) -> float:
    """Return the milliseconds of a text: the median of some calls of `one_by_one`, each through all `texts`."""
    one_by_one()
    taken = []
    for _ in range(PASSES):
        started = time.perf_counter()
        one_by_one()
        taken.append(time.perf_counter() - started)
    return 1e3 * float(np.median(taken)) / texts


def asked_latency(found: Found, model: Model, tokens: Any, device: torch.device) -> float | None:
    """Return the milliseconds of one text of `tokens` in a batch of its own; None where no ceiling asks for them."""
    if found.recipe.budget.latency_ms is None:
        return None
    some, passes = tokens.first(TEXTS), Passes(1, device)
    return latency_of(lambda: found.task.outputs(model.module, some, found.recipe, passes), len(some))


def check_speed(found: Found, model: Model, tokens: Any, device: torch.device) -> None:
    """Raise BudgetError where the model as built is slower than `budget.latency_ms`: training does not change that."""
    measured, asked = asked_latency(found, model, tokens, device), found.recipe.budget.latency_ms
    if measured is not None and asked is not None and measured > asked:
        raise BudgetError(_refusal(found.recipe, f"{measured:.2f} ms a text against budget.latency_ms = {asked:g}"))


def check_memory(recipe: Recipe, estimate: float) -> None:
    """Raise BudgetError where `estimate` bytes, or what the process held so far, exceed `budget.peak_memory_gb`."""
    asked, found = recipe.budget.peak_memory_gb, max(estimate, peak_resident_bytes() or 0)
    if asked is not None and found > asked * 1e9:
        shown = f"{found / 1e9:.2f} GB of memory, as estimated, against budget.peak_memory_gb = {asked:g}"
        raise BudgetError(_refusal(recipe, shown))


def memory_watch(recipe: Recipe) -> Callable[[], None]:
    """Return what raises BudgetError once the process has held more than `budget.peak_memory_gb`."""
    asked = recipe.budget.peak_memory_gb

    def look() -> None:
        if asked is not None and (peak_resident_bytes() or 0) > asked * 1e9:
            shown = f"{(peak_resident_bytes() or 0) / 1e9:.2f} GB of memory against budget.peak_memory_gb = {asked:g}"
            raise BudgetError(f"{recipe.path}: training was ended at a ceiling of its budget: {shown}")

    return look


def seconds_of_pass(found: Found, model: Model, tokens: Any, device: torch.device) -> float:
    """Return the seconds of a token when rows are scored, measured on one batch of `tokens`."""
    rows = found.recipe.evaluation.batch_size
    some = tokens.first(rows)
    started = time.perf_counter()
    found.task.outputs(model.module, some, found.recipe, Passes(rows, device))
    tokens_passed: int = max(1, some.width * len(some))
    return (time.perf_counter() - started) / tokens_passed


def padded(tokens: Any) -> int:
    """Return the tokens of all rows, a little more for padding."""
    return int(1.1 * tokens.lengths.sum()) + 1


def check_minutes(recipe: Recipe, clock: Clock, needed: float) -> None:
    """Raise TimeSpent where fewer than `needed` seconds are left: what saving and scoring alone will take."""
    if clock.left() < needed:
        raise TimeSpent(
            f"{recipe.path}: {max(0.0, clock.left()):.0f} s are left of budget.minutes = {recipe.budget.minutes:g}, "
            f"and saving, proving and scoring take about {needed:.0f} s; nothing was trained in this sitting; raise it"
        )


@dataclass
class TimeUp:
    """Says when only the end of the run fits into the time that is left. `ending`: the seconds that it takes."""

    clock: Clock
    ending: float
    _last: float = field(default_factory=time.perf_counter)
    _longest: float = 0.0

    def asked(self) -> bool:
        """Say whether to stop; called once a step. Room is kept for a step as long as the longest so far."""
        now = time.perf_counter()
        self._longest, self._last = max(self._longest, now - self._last), now
        return self.clock.left() < self.ending + 1.5 * self._longest


def against_ceilings(
    budget: Budget, parameters: Parameters, memory: Memory, seconds: float, latency_ms: float | None
) -> dict[str, Ceiling]:
    """Return each ceiling of `budget`, the target excepted, with what the run came to."""
    peak = max(memory.peak_rss_bytes or 0, memory.peak_device_bytes or 0)
    measured: dict[str, float] = {
        "trainable_parameters": parameters.trainable,
        "shipped_mb": parameters.shipped_bytes / 1e6,
        "peak_memory_gb": peak / 1e9,
        "minutes": seconds / 60,
        "latency_ms": latency_ms if latency_ms is not None else 0.0,
    }
    asked = {name: getattr(budget, name) for name in measured}
    return {name: Ceiling(asked=asked[name], measured=measured[name]) for name in measured if asked[name] is not None}


def check_kept(recipe: Recipe, ceilings: dict[str, Ceiling]) -> None:
    """Raise BudgetError where what was measured is above a ceiling."""
    over = [
        f"{name} = {one.measured:,.4g} against {one.asked:,.4g}"
        for name, one in ceilings.items()
        if one.measured > one.asked
    ]
    if over:
        raise BudgetError(f"{recipe.path}: the run came out above its budget: {'; '.join(over)}")


def _refusal(recipe: Recipe, shown: str) -> str:
    return f"{recipe.path}: the plan exceeds its budget: {shown}; choose a smaller method or raise it"
