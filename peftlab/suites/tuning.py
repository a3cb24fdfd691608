"""Equal tuning: the same number of learning-rate trials for every method that trains by gradient, on validation.

A trial is a run like any other but for `evaluation.score_test = false`: it never sees a test row. Its record stands in
`tuning/` beside those of the runs. An Optuna study a recipe holds the same trials where several machines can see them,
so that a machine does only those that no other one has done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftlab.errors import MissingPackage, UserError
from peftlab.recipe.plugins import LearningRate, load_plugin
from peftlab.runs.files import write_json, write_text
from peftlab.runs.result import Result
from peftlab.suites.arms import Arm
from peftlab.suites.orders import PlannedRun
from peftlab.suites.plan import Inputs, plan_run
from peftlab.suites.records import DONE, record_path, recorded
from peftlab.suites.suite import Tuning

FOLDER = "tuning"
SUMMARY = "summary.json"
INSTALL = 'pip install "peftlab[bench]"'


@dataclass(frozen=True)
class Trial:
    """A run that tries one learning rate and scores validation only."""

    run: PlannedRun
    learning_rate: float


def learning_rates(usual: LearningRate, trials: int) -> tuple[float, ...]:
    """Return `trials` rates, the same for the same method: even by logarithm, to three digits, in rising order.

    They span from half-way (by logarithm) between the method's lowest rate and its default to half-way between its
    default and its highest rate; a single trial takes the default.
    """
    if trials == 1:
        return (usual.default,)
    low, high = math.sqrt(usual.low * usual.default), math.sqrt(usual.default * usual.high)
    return tuple(float(f"{low * (high / low) ** (place / (trials - 1)):.3g}") for place in range(trials))


def plan_trials(arm: Arm, tuning: Tuning, inputs: Inputs) -> list[Trial]:
    """Return the arm's trials; none for a method without a learning rate, which chooses on validation by itself."""
    usual: LearningRate | None = load_plugin("methods", arm.recipe(tuning.seed).method.name).LEARNING_RATE
    if usual is None:
        return []
    planned = []
    for place, rate in enumerate(learning_rates(usual, tuning.trials)):
        more = (*tuning.overrides, f"train.learning_rate={rate!r}", "evaluation.score_test=false")
        run = plan_run(arm, f"{arm.name}-lr{place}", tuning.seed, inputs, more)
        planned += [Trial(run, rate)] if run is not None else []
    return planned


def chosen_trial(folder: Path, trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the best validation metric, of equals the lowest rate; None where none went to its end."""
    done = [(trial, value) for trial in trials if (value := _value(recorded(folder, trial.run), trial)) is not None]
    if not done:
        return None
    sign = 1.0 if _higher_is_better(done[0][0]) else -1.0
    return max(done, key=lambda pair: (sign * pair[1], -pair[0].learning_rate))[0]


def all_recorded(folder: Path, trials: Sequence[Trial]) -> bool:
    """Say whether no trial is left to do."""
    return all(recorded(folder, trial.run) is not None for trial in trials)


def write_summary(folder: Path, tuning: Tuning, by_arm: dict[str, list[Trial]]) -> None:
    """Write `summary.json`: for each recipe its trials with their validation metric, and the rate that was chosen."""
    recipes = {}
    for arm, trials in by_arm.items():
        if not trials:
            continue
        chosen = chosen_trial(folder, trials)
        recipes[arm] = {
            "metric": _metric(trials[0]),
            "learning_rate": chosen.learning_rate if chosen is not None else None,
            "trials": [_line(folder, trial) for trial in trials],
        }
    values = {"trials_of_each_recipe": tuning.trials, "seed": tuning.seed, "overrides": list(tuning.overrides)}
    write_json(folder / SUMMARY, values | {"recipes": recipes})


def _line(folder: Path, trial: Trial) -> dict[str, Any]:
    result = recorded(folder, trial.run)
    return {
        "record": f"{trial.run.name}.json",
        "learning_rate": trial.learning_rate,
        "validation": _value(result, trial),
        "status": result.status if result is not None else "failed",
    }


def _metric(trial: Trial) -> str:
    return trial.run.recipe.evaluation.metric


def _value(result: Result | None, trial: Trial) -> float | None:
    return result.metrics.validation.get(_metric(trial)) if result is not None and result.status in DONE else None


def _higher_is_better(trial: Trial) -> bool:
    return _metric(trial) not in load_plugin("tasks", trial.run.recipe.task.name).LOWER_IS_BETTER


# The storage that machines share ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Studies:
    """The studies of one suite in an Optuna storage, one a recipe."""

    storage: Any
    suite: str

    def of(self, trial: Trial) -> Any:
        """Return the study that the trial belongs to, made where it is missing."""
        import optuna

        return optuna.create_study(
            storage=self.storage,
            study_name=f"{self.suite}/{trial.run.arm}",
            direction="maximize" if _higher_is_better(trial) else "minimize",
            load_if_exists=True,
        )


def open_studies(suite: str, asked: str | None, work: Path) -> Studies:
    """Open the storage: a database's URL, or a file that keeps a journal; MissingPackage where Optuna is not installed.

    UserError where the database cannot be reached.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingPackage(f"[tuning] needs the package optuna, which is not installed: {INSTALL}") from None
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if asked is not None and "://" in asked:
        try:
            return Studies(optuna.storages.RDBStorage(asked), suite)
        except (SQLAlchemyError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"tuning.storage {asked!r} cannot be opened: {reason}") from None
    path = Path(asked) if asked is not None else work / "tuning.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    from optuna.storages.journal import JournalFileBackend

    return Studies(optuna.storages.JournalStorage(JournalFileBackend(str(path))), suite)


def take_over(studies: Studies, trial: Trial, folder: Path) -> bool:
    """Write the record of the same trial (recipe, data, code) by another machine; say whether there was one."""
    key = trial.run.order.key.to_dict()
    for past in studies.of(trial).get_trials(deepcopy=False):
        if past.user_attrs.get("key") == key and past.state.name == "COMPLETE":
            write_text(record_path(folder, trial.run.name), past.user_attrs["record"])
            return recorded(folder, trial.run) is not None
    return False


def share(studies: Studies, trial: Trial, folder: Path) -> None:
    """Add a trial that this machine has done to its study, failed ones too."""
    import optuna

    result = recorded(folder, trial.run)
    value = _value(result, trial)
    usual = load_plugin("methods", trial.run.recipe.method.name).LEARNING_RATE
    studies.of(trial).add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE if value is not None else optuna.trial.TrialState.FAIL,
            params={"learning_rate": trial.learning_rate},
            distributions={"learning_rate": optuna.distributions.FloatDistribution(usual.low, usual.high, log=True)},
            value=value,
            user_attrs={
                "key": trial.run.order.key.to_dict(),
                "record": record_path(folder, trial.run.name).read_text(encoding="utf-8"),
            },
        )
    )
