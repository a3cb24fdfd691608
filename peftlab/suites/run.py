"""A suite from its file to its records: plan, trials, runs; nothing is done twice."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import UserError
from peftlab.runs.result import Result
from peftlab.suites.arms import Arm, load_suite
from peftlab.suites.board import Board, shown
from peftlab.suites.execute import Ended
from peftlab.suites.orders import PlannedRun
from peftlab.suites.plan import Inputs, check_models, plan_runs, raise_mistakes
from peftlab.suites.records import DONE, copy_suite, forget_work, keep, keep_failure, recorded, usual_seconds
from peftlab.suites.schedule import RunAll, alone_in
from peftlab.suites.suite import Suite
from peftlab.suites.tuning import (
    FOLDER,
    Studies,
    Trial,
    all_recorded,
    chosen_trial,
    open_studies,
    plan_trials,
    share,
    take_over,
    write_summary,
)

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Places:
    """Where a suite is kept: `records` are committed, `work` holds the run folders."""

    records: Path
    work: Path

    @property
    def tuning(self) -> Path:
        """Return the folder of the trials' records."""
        return self.records / FOLDER


@dataclass(frozen=True)
class SuitePlan:
    """A suite with its arms, trials by arm, and runs; `parameters`: trainable ones of the arms that were built.

    Runs of an arm whose trials are not all done stand here with the method's default learning rate.
    """

    path: Path
    suite: Suite
    arms: tuple[Arm, ...]
    trials: Mapping[str, list[Trial]]
    runs: Sequence[PlannedRun]
    inputs: Inputs
    parameters: Mapping[str, int] = field(default_factory=dict)

    def awaits_trials(self, arm: str, places: Places) -> bool:
        """Say whether the arm's learning rate is still to be chosen."""
        return not all_recorded(places.tuning, self.trials.get(arm, []))


@dataclass(frozen=True)
class Outcome:
    """The results by run, and which of them were recorded before."""

    results: Mapping[str, Result]
    before: frozenset[str]

    @property
    def failed(self) -> list[str]:
        """Return the names of the runs that did not go to their end."""
        return [name for name, result in self.results.items() if result.status not in DONE]


def plan_suite(path: Path, places: Callable[[str], Places], only: str | None) -> SuitePlan:
    """Read the suite and check everything that can be known before the first run.

    `places(name)` says where a suite is kept; `only`: a pattern of run names (`lora-*`). Raises RecipeError with every
    mistake in suite and recipes, then UserError with everything that is wrong with data, encoders and models.
    """
    suite, arms = load_suite(path)
    inputs = Inputs()
    kept = places(suite.name)
    trials: dict[str, list[Trial]] = {}
    runs: list[PlannedRun] = []
    for arm in arms:
        if suite.tuning is not None:
            trials[arm.name] = plan_trials(arm, suite.tuning, inputs)
        runs += _runs(arm, suite, trials.get(arm.name, []), kept, inputs)
    names = [run.name for run in runs]
    if only is not None:
        runs = [run for run in runs if fnmatch.fnmatchcase(run.name, only)]
        trials = {arm: found for arm, found in trials.items() if any(run.arm == arm for run in runs)}
        if not runs and not inputs.mistakes:
            raise UserError(f"--only {only!r} fits no run of the suite; they are {', '.join(names)}")
    to_do = [run for run in runs if recorded(kept.records, run) is None]
    parameters = check_models(to_do, inputs)
    raise_mistakes(inputs)
    return SuitePlan(path, suite, arms, trials, runs, inputs, parameters)


def _runs(arm: Arm, suite: Suite, trials: Sequence[Trial], places: Places, inputs: Inputs) -> list[PlannedRun]:
    """Return the arm's runs with the learning rate that its trials chose, or the default one."""
    chosen = chosen_trial(places.tuning, trials)
    more = (f"train.learning_rate={chosen.learning_rate!r}",) if chosen is not None else ()
    return plan_runs(arm, suite.seeds, inputs, more)


def run_suite(plan: SuitePlan, places: Places, run_all: RunAll, jobs: int, console: Console) -> Outcome:
    """Do the trials and runs that are not recorded; a failure is recorded and the rest goes on.

    Raises Interrupted once every run at work has saved its state.
    """
    suite = plan.suite
    with alone_in(places.work):
        copy_suite(plan.path, places.records)
        runs = list(plan.runs)
        if suite.tuning is not None:
            _tune(plan, places, run_all, jobs, console)
            by_arm = {arm.name: arm for arm in plan.arms}
            wanted = {run.name for run in runs}
            again = [
                run
                for name, trials in plan.trials.items()
                for run in _runs(by_arm[name], suite, trials, places, plan.inputs)
            ]
            runs = [run for run in again if run.name in wanted]
        before = {run.name: result for run in runs if (result := recorded(places.records, run)) is not None}
        ready, hopeless = _ready(runs, plan, places)
        results = dict(before)
        for run in hopeless:
            words = f"every learning-rate trial of {run.arm} failed; see {places.tuning}"
            results[run.name] = keep_failure(places.records, run, words)
        results |= _do(ready, before, places.records, places.work, run_all, _board(plan, runs, places, jobs, console))
        return Outcome({run.name: results[run.name] for run in runs}, frozenset(before))


def _ready(runs: Sequence[PlannedRun], plan: SuitePlan, places: Places) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """Return the runs that can be done, and those of arms of which every trial failed."""
    hopeless = {arm for arm, trials in plan.trials.items() if trials and chosen_trial(places.tuning, trials) is None}
    return [run for run in runs if run.arm not in hopeless], [run for run in runs if run.arm in hopeless]


def _board(plan: SuitePlan, runs: Sequence[PlannedRun], places: Places, jobs: int, console: Console) -> Board:
    usual = usual_seconds(places.records, runs)
    return Board(console, plan.suite.title, runs, usual, jobs, plan.suite.ceilings)


def _tune(plan: SuitePlan, places: Places, run_all: RunAll, jobs: int, console: Console) -> None:
    """Do the trials that neither this machine nor one that shares the storage has done, and write their summary."""
    suite, folder = plan.suite, places.tuning
    if suite.tuning is None:
        return
    every = [trial for trials in plan.trials.values() for trial in trials]
    if not all_recorded(folder, every):
        studies = open_studies(suite.name, suite.tuning.storage, places.work)
        for trial in every:
            if recorded(folder, trial.run) is None:
                take_over(studies, trial, folder)
        _do_trials(plan, every, studies, places, run_all, jobs, console)
    write_summary(folder, suite.tuning, dict(plan.trials))


def _do_trials(
    plan: SuitePlan,
    every: Sequence[Trial],
    studies: Studies,
    places: Places,
    run_all: RunAll,
    jobs: int,
    console: Console,
) -> None:
    folder, runs = places.tuning, [trial.run for trial in every]
    before = {run.name: result for run in runs if (result := recorded(folder, run)) is not None}
    usual = usual_seconds(folder, runs)
    board = Board(console, f"{plan.suite.title}, learning-rate trials", runs, usual, jobs, plan.suite.ceilings)
    trial_of = {trial.run.name: trial for trial in every}
    work = places.work / FOLDER

    def shared(run: PlannedRun) -> None:
        share(studies, trial_of[run.name], folder)
        forget_work(work / run.name)

    _do(runs, before, folder, work, run_all, board, after=shared)


def _do(
    runs: Sequence[PlannedRun],
    before: Mapping[str, Result],
    records: Path,
    work: Path,
    run_all: RunAll,
    board: Board,
    after: Callable[[PlannedRun], None] = lambda _: None,
) -> dict[str, Result]:
    """Do those of `runs` that are not among the results `before`, record each as it ends, and return their results."""
    results: dict[str, Result] = {}
    for run in runs:
        if run.name in before:
            board.kept(run, before[run.name])
    to_do = [run for run in runs if run.name not in before]
    if not to_do:
        return results
    with shown(board):
        for event in run_all(to_do, work):
            if event.kind == "started" and event.run is not None:
                board.begin(event.run)
            elif event.kind == "ended" and event.run is not None and event.ended is not None:
                if not _cut_short(event.ended):
                    results[event.run.name] = keep(records, event.run, work / event.run.name, event.ended.last_words)
                    board.end(event.run, results[event.run.name])
                    after(event.run)
            else:
                board.draw()
    return results


def _cut_short(ended: Ended) -> bool:
    """Say whether the run ended because the bench was asked to stop: it is no failure, and will be continued."""
    return ended.stopped and ended.code != 0
