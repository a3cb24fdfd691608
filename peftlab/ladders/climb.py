"""Climb: rung by rung, each tuned within its share of the minutes, until validation clears the target."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.errors import Mistake, RecipeError, UserError
from peftlab.evaluation.compact_predictions import SUFFIX, read_compact
from peftlab.evaluation.over_seeds import Correct, accuracy_interval, paired_difference
from peftlab.ladders.ladder import Ladder, Rung, settings_of
from peftlab.ladders.rung_runs import arm_of, clock_of, more_settings, planned_runs
from peftlab.ladders.site import Site, Step, end_if_asked
from peftlab.ladders.trials import (
    Judge,
    Tried,
    keep_trial,
    kept_trial,
    validation_values,
    was_tried,
)
from peftlab.recipe.plugins import load_plugin
from peftlab.runs.result import FILE_NAME
from peftlab.suites.board import clock
from peftlab.suites.execute import Ended
from peftlab.suites.orders import PlannedRun
from peftlab.suites.plan import plan_run
from peftlab.suites.records import read_record

if TYPE_CHECKING:
    from peftlab.recipe.records import Recipe

LOOK_SECONDS = 0.5
STARTING_SECONDS = 10.0
"""What a run takes before its own clock begins: its process and its imports."""


def climb(site: Site) -> Iterator[Step]:
    """Yield every rung in turn, up to the first whose validation interval lies above the target; then the rest unbegun.

    Raises Interrupted where a signal asked to stop; what was recorded is not done again.
    """
    ladder, best, cleared = site.ladder, None, False
    steps: dict[str, Step] = {}
    for place, rung in enumerate(ladder.rungs):
        if cleared:
            step = Step(rung, "not begun", "the target was cleared before it")
        elif (_cut_short(steps) or _late(site)) and not was_tried(site.records, rung.name):
            step = Step(rung, "not begun", "the minutes were used up")
        else:
            left = [one for one in ladder.rungs[place:] if one.waits_for is None]
            step = _climbed(site, rung, len(left), steps, best)
        steps[rung.name] = step
        if step.accuracy is not None and (best is None or step.accuracy.value > _value(best)):
            best = step
        cleared = cleared or clears(step, ladder)
        yield step


def _late(site: Site) -> bool:
    """Say whether there is no time to begin a run; what an earlier sitting has recorded counts all the same."""
    return site.account.left() <= STARTING_SECONDS


def _cut_short(steps: dict[str, Step]) -> bool:
    return any(one.state == "stopped" for step in steps.values() for one in step.trials)


def check_rungs(site: Site) -> None:
    """Read the recipe of every rung that can be known before the first one; RecipeError with every mistake in them."""
    mistakes: list[Mistake] = []
    for rung in site.ladder.rungs:
        if rung.waits_for is None:
            # Its teachers are known once they are climbed.
            words = ('distill.teachers=["an-earlier-rung"]',) if rung.teachers else ()
            try:
                recipe = arm_of(site, rung.name, settings_of(site.ladder, rung, words)).recipe(site.ladder.seed)
            except RecipeError as error:
                mistakes += [replace(one, key=f"rung {rung.name}: {one.key}") for one in error.mistakes]
                continue
            if recipe.task.name != "classification" or getattr(recipe.task.config, "multi_label", False):
                raise UserError(f"{site.recipe}: a search climbs on the accuracy of single-label classification")
    if mistakes:
        raise RecipeError(list(dict.fromkeys(mistakes)))


def clears(step: Step, ladder: Ladder) -> bool:
    """Say whether the lower end of the rung's 95 % interval on validation is at or above the target."""
    return step.accuracy is not None and ladder.target is not None and step.accuracy.low >= ladder.target


def _value(step: Step) -> float:
    return step.accuracy.value if step.accuracy is not None else -1.0


def _climbed(site: Site, rung: Rung, rungs_left: int, steps: dict[str, Step], best: Step | None) -> Step:
    if rung.waits_for is not None:
        return Step(rung, "left out", f"waits for {rung.waits_for}")
    share = site.account.share_of(rung.name, rungs_left)
    more = more_settings(site, rung, steps, share)
    if isinstance(more, str):
        return Step(rung, "left out", more)
    planned, reason = planned_runs(site, rung, more)
    if not planned:
        return Step(rung, "left out", reason)
    trials = tuple(_tried(site, planned, share))
    usable = [one for one in trials if one.usable]
    if not usable:
        over = _late(site)
        return Step(rung, "not begun" if over else "left out", _why(trials, over=over), trials)
    chosen = _best_of(usable, planned[0].recipe)
    _keep_back(site, chosen, planned[0])
    correct = correct_rows(site.records, chosen.name)
    before = correct_rows(site.records, best.chosen.name) if best is not None and best.chosen is not None else None
    gain = paired_difference(correct, before).interval() if before is not None else None
    return Step(rung, "climbed", None, trials, chosen, accuracy_interval(correct), gain)


def _keep_back(site: Site, chosen: Tried, run: PlannedRun) -> None:
    """Keep the time back that the test rows will take, by what the validation rows took; they were scored twice."""
    found, result = site.inputs.of(run.recipe), chosen.result
    if found is not None and result is not None and result.seconds.test is not None:
        share = found.splits.report["splits"]["test"]["rows"] / max(1, len(found.splits.validation))
        site.account.keep_back(1.5 * share * result.seconds.test / 2 + STARTING_SECONDS)


def _why(trials: Sequence[Tried], *, over: bool) -> str:
    if over:
        return "the minutes were used up before it had a model"
    words = next((one.reason for one in trials if one.reason), "no trial came to its end")
    return words.splitlines()[0]


def correct_rows(records: Path, name: str) -> Correct:
    """Return whether each validation row was right, shape [1, rows]."""
    kept = read_compact(records / f"{name}{SUFFIX}")
    right: Correct = (np.array(kept.gold) == np.array(kept.predicted))[None]
    return right


def _best_of(usable: Sequence[Tried], recipe: Recipe) -> Tried:
    """Return the run with the best value of the recipe's metric; of equals the one tried first."""
    metric = recipe.evaluation.metric
    sign = 1.0 if _higher_is_better(recipe) else -1.0

    def value(one: Tried) -> float:
        return sign * one.result.metrics.validation[metric] if one.result is not None else 0.0

    return max(usable, key=value)


def _higher_is_better(recipe: Recipe) -> bool:
    return recipe.evaluation.metric not in load_plugin("tasks", recipe.task.name).LOWER_IS_BETTER


# One run after the other ------------------------------------------------------------------------------------------


def _tried(site: Site, planned: Sequence[PlannedRun], share: float) -> Iterator[Tried]:
    """Yield the trials of a rung: the first one always, the others while they fit into its share of the minutes."""
    metric = planned[0].recipe.evaluation.metric
    judge = Judge(higher_is_better=_higher_is_better(planned[0].recipe))
    spent = longest = 0.0
    for place, run in enumerate(planned):
        kept = kept_trial(site.records, run)
        # What an earlier sitting has done counts, whatever share is left now: the same trials, the same verdict.
        if kept is None and (_late(site) or (place and spent + longest > share)):
            return
        hearing = judge.begin()
        if kept is not None:
            hearing.hear(kept.values)
            tried = kept
        else:
            site.console.print(f"{run.name}: trial {place + 1} of {len(planned)}; {clock_of(site)}", markup=False)
            tried = _run(site, run, metric, hearing.hear)
            site.account.worked = site.account.worked or tried.state != "failed"
            if tried.state == "complete":
                cut = hearing.hear(tried.values)
                tried = _pruned(tried, hearing.pruned_at) if cut else tried
            keep_trial(site.records, run, tried, site.work / run.name)
            site.account.write()
        hearing.close(tried.values)
        spent, longest = spent + tried.seconds, max(longest, tried.seconds)
        _tell(site, run, tried, kept=kept is not None, left=min(len(planned) - place - 1, _fits(share, spent, longest)))
        yield tried
        if tried.state == "stopped":
            return


def run_beside(site: Site, step: Step, name: str, more: tuple[str, ...]) -> Tried | None:
    """Return one more run of a rung, with other settings, from its record or by doing it; None where time is short."""
    rate = step.chosen.learning_rate if step.chosen is not None else None
    words = (f"train.learning_rate={rate!r}", *more) if rate is not None else more
    run = plan_run(
        arm_of(site, step.rung.name, settings_of(site.ladder, step.rung)), name, site.ladder.seed, site.inputs, words
    )
    if run is None:
        return None
    kept = kept_trial(site.records, run)
    if kept is not None:
        return kept
    if site.account.left() < 2 * step.seconds + STARTING_SECONDS:
        return None
    site.console.print(f"{name}: for the learning curve; {clock_of(site)}", markup=False)
    tried = _run(site, run, run.recipe.evaluation.metric, lambda _: False)
    keep_trial(site.records, run, tried, site.work / name)
    return tried


def _fits(share: float, spent: float, longest: float) -> int:
    return 99 if share == float("inf") else max(0, int((share - spent) / max(longest, 1e-9)))


def _pruned(tried: Tried, at: int | None) -> Tried:
    """Return the trial as cut off after validation `at`, also where it was over before anybody looked."""
    return replace(tried, state="pruned", values=tried.values[:at], result=None)


def _run(site: Site, run: PlannedRun, metric: str, hear: Callable[[Sequence[float]], bool]) -> Tried:
    """Do one run, watched; raises Interrupted where a signal asked to stop."""
    account, folder, looked = site.account, site.work / run.name, [0.0]
    cut, started = [False], account.spent()

    def stop() -> bool:
        account.tick()
        if site.wish.asked() or account.left() <= 0:
            return True
        if time.monotonic() - looked[0] > LOOK_SECONDS:
            looked[0] = time.monotonic()
            cut[0] = cut[0] or hear(validation_values(folder, metric))
        return cut[0]

    order = run.order
    if account.minutes is not None:
        minutes = max(0.01, (account.left() - STARTING_SECONDS) / 60)
        order = replace(order, overrides=(*order.overrides, f"budget.minutes={minutes!r}"))
    ended = site.do(order, site.work, site.threads, stop)
    end_if_asked(site)
    return _outcome(run, folder, metric, ended, account.spent() - started, cut=cut[0])


def _outcome(run: PlannedRun, folder: Path, metric: str, ended: Ended, seconds: float, *, cut: bool) -> Tried:
    asked = run.recipe.train.learning_rate
    rate = asked if isinstance(asked, float) else None
    values = validation_values(folder, metric)
    result = read_record(folder / FILE_NAME)
    if result is not None and result.status in ("validated", "stopped"):
        state: Any = "complete" if result.status == "validated" else "stopped"
        return Tried(run.name, state, rate, values, seconds, result.reason, result)
    if cut:
        return Tried(run.name, "complete", rate, values, seconds)  # judged again, and cut off, by the caller
    if ended.stopped or (result is not None and result.status == "interrupted"):
        return Tried(run.name, "stopped", rate, values, seconds, "the minutes were used up")
    reason = result.reason if result is not None else ended.last_words.strip().rpartition("\n")[2]
    return Tried(run.name, "failed", rate, values, seconds, reason or "the process ended without a word")


# What a person sees -----------------------------------------------------------------------------------------------


def _tell(site: Site, run: PlannedRun, tried: Tried, *, kept: bool, left: int) -> None:
    shown = tried.reason or ""
    if tried.result is not None:
        shown = f"validation accuracy {tried.result.metrics.validation.get('accuracy', float('nan')):.4f}"
    if tried.state == "pruned":
        shown = f"cut off after validation {len(tried.values)}"
    rest = f"this rung about {clock(left * tried.seconds)} more" if left else "this rung is done"
    words = f"{run.name}: {tried.state}{' (recorded)' if kept else ''}: {shown.splitlines()[0] if shown else ''}"
    site.console.print(f"{words}; {clock(tried.seconds)}; {clock_of(site)}; {rest}", markup=False)
