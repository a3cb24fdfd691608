"""The runs of one rung: learning rates on validation, the hopeless ones cut off early; each a run with a record.

Optuna's asynchronous successive halving (Li et al. 2020, arXiv 1810.05934) judges a trial after each validation against
those before it. It is fed by the metric lines in their order, whenever they are read, so a search that is killed and
goes on judges as one that was not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from peftlab.errors import MissingPackage
from peftlab.evaluation.compact_predictions import SUFFIX, compact_predictions, write_compact
from peftlab.evaluation.predictions import VALIDATION_FILE
from peftlab.recipe.plugins import LearningRate
from peftlab.runs.files import write_json, write_text
from peftlab.runs.result import FILE_NAME, Result
from peftlab.suites.execute import Ended
from peftlab.suites.orders import Order, PlannedRun
from peftlab.suites.records import METRIC_LINES, key_of, read_record, record_path
from peftlab.suites.tuning import INSTALL, learning_rates

State = Literal["complete", "pruned", "stopped", "failed"]
Do = Callable[[Order, Path, int | None, Callable[[], bool]], Ended]
TRIAL = ".trial.json"


@dataclass(frozen=True)
class Tried:
    """One run of a rung and what it came to.

    `values`: the metric that chooses, after each validation. `seconds`: wall time, also of a trial that was cut off.
    """

    name: str
    state: State
    learning_rate: float | None
    values: tuple[float, ...]
    seconds: float
    reason: str | None = None
    result: Result | None = None

    @property
    def usable(self) -> bool:
        """Whether there is a model."""
        return self.state in ("complete", "stopped") and self.result is not None


def rates_in_order(usual: LearningRate | None, trials: int, own: float | None = None) -> tuple[float | None, ...]:
    """Return the learning rates to try, the likeliest first; None: as the recipe says.

    `own`: the rate that the ladder's recipe states for the same method. It takes the place of the nearest rate of the
    method's grid and comes first: whoever wrote it may know the data. Without it the method's default is the likeliest.
    """
    if usual is None:
        return (None,)
    if trials == 1:
        return (own,)

    def distance(rate: float) -> tuple[float, float]:
        return abs(math.log(rate / (own or usual.default))), rate

    rates = sorted(learning_rates(usual, trials), key=distance)
    return tuple(rates) if own is None else (own, *rates[1:])


class Judge:
    """Successive halving over the trials of one rung, in the order in which they are shown."""

    def __init__(self, *, higher_is_better: bool) -> None:
        try:
            import optuna
        except ModuleNotFoundError:
            raise MissingPackage(f"a search needs the package optuna, which is not installed: {INSTALL}") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._study = optuna.create_study(
            direction="maximize" if higher_is_better else "minimize",
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        )

    def begin(self) -> Hearing:
        """Open the next trial."""
        return Hearing(self._optuna, self._study, self._study.ask())


@dataclass
class Hearing:
    """One trial before the judge. `pruned_at`: the validation, counted from 1, at which it was cut off."""

    _optuna: Any
    _study: Any
    _trial: Any
    heard: int = 0
    pruned_at: int | None = None

    def hear(self, values: Sequence[float]) -> bool:
        """Take in the values after those heard before; say whether the trial is to be cut off."""
        for place in range(self.heard, len(values)):
            if self.pruned_at is not None:
                break
            self._trial.report(values[place], place + 1)
            self.heard = place + 1
            if self._trial.should_prune():
                self.pruned_at = place + 1
        return self.pruned_at is not None

    def close(self, values: Sequence[float]) -> None:
        """End the trial with what it came to."""
        states = self._optuna.trial.TrialState
        if self.pruned_at is not None:
            self._study.tell(self._trial, state=states.PRUNED)
        elif values:
            self._study.tell(self._trial, values[-1])
        else:
            self._study.tell(self._trial, state=states.FAIL)


def validation_values(run: Path, metric: str) -> tuple[float, ...]:
    """Return `metric` after each validation that the run in the folder `run` has written down."""
    path = run / METRIC_LINES
    if not path.is_file():
        return ()
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    found = [json.loads(line) for line in lines if '"validation"' in line]
    return tuple(line["validation"][metric] for line in found if metric in line.get("validation", {}))


def kept_trial(records: Path, run: PlannedRun) -> Tried | None:
    """Return the recorded trial that stands for `run`: with the same recipe, data and code; None where it is to be run.

    Trials that failed, or were stopped by the clock, are run again.
    """
    path = records / f"{run.name}{TRIAL}"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if values.pop("key") != run.order.key.to_dict() or values["state"] not in ("complete", "pruned"):
        return None
    result = read_record(record_path(records, run.name))
    if values["state"] == "complete" and (result is None or key_of(result) != run.order.key):
        return None
    return Tried(**(values | {"values": tuple(values["values"])}), result=result)


def was_tried(records: Path, rung: str) -> bool:
    """Say whether a trial of the rung is recorded, of whatever code or data."""
    return any(records.glob(f"{rung}{TRIAL}")) or any(records.glob(f"{rung}-lr*{TRIAL}"))


def keep_trial(records: Path, run: PlannedRun, tried: Tried, folder: Path) -> None:
    """Record a trial: its predictions on validation, its result, and last the file that makes it count."""
    predictions, result = records / f"{run.name}{SUFFIX}", record_path(records, run.name)
    if tried.result is not None:
        if (folder / VALIDATION_FILE).is_file():
            write_compact(predictions, compact_predictions(folder, VALIDATION_FILE, split="validation"))
        write_text(result, (folder / FILE_NAME).read_text(encoding="utf-8"))
    else:
        predictions.unlink(missing_ok=True)
        result.unlink(missing_ok=True)
    values: Mapping[str, Any] = {key: value for key, value in asdict(tried).items() if key != "result"}
    write_json(records / f"{run.name}{TRIAL}", {"key": run.order.key.to_dict(), **values})
