"""Runs of a search that take no time: within the test process, or made up with a clock of their own."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from peftlab.evaluation.predictions import VALIDATION_FILE, write_predictions
from peftlab.runs.result import Result, write_result
from peftlab.suites.execute import Ended, never
from peftlab.suites.orders import Order

ROWS = 400
"""Validation rows of a made-up run."""


def in_this_process(order: Order, work: Path, threads: int | None, stop: Callable[[], bool] = never) -> Ended:
    """Do an order as `execute` does, without a process."""
    shutil.rmtree(work / order.name, ignore_errors=True)
    words = [order.recipe, *order.overrides, f"run.dir={work / order.name}"]
    return Ended(importlib.import_module(order.program).main(words), "", stopped=False)


@dataclass
class MadeUp:
    """Runs that take the seconds and come to the accuracy that a test says, by the beginning of their names.

    `accuracies`, `seconds`: by rung or trial; a rung that is not named has an accuracy of 0.5 and takes a second.
    `values`: what the validations of a trial show. `done`: names in order. A run obeys its own `budget.minutes`.
    """

    template: Result
    accuracies: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda _: None
    now: float = 0.0

    def do(self, order: Order, work: Path, _threads: int | None, _stop: Callable[[], bool] = never) -> Ended:
        """Write what a run would leave in its folder."""
        self.before(order.name)
        self.done.append(order.name)
        folder = work / order.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        given = [float(text.partition("=")[2]) for text in order.overrides if text.startswith("budget.minutes=")]
        allowed, wanted = 60 * given[-1] if given else 1e9, self.of(order.name, self.seconds, 1.0)
        self.now += min(allowed, wanted)
        lines = [
            json.dumps({"step": place, "validation": {"accuracy": value}}) + "\n"
            for place, value in enumerate(self.of(order.name, self.values, [self.of(order.name, self.accuracies, 0.5)]))
        ]
        (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
        accuracy = self.of(order.name, self.accuracies, 0.5)
        gold = np.zeros(ROWS, np.int64)
        right = np.arange(ROWS) < round(accuracy * ROWS)
        logits = np.where(right[:, None], [[2.0, 0.0]], [[0.0, 2.0]]).astype(np.float32)
        ids = [str(row) for row in range(ROWS)]
        write_predictions(folder / VALIDATION_FILE, ids, logits, gold, ("a", "b"), multi_label=False)
        write_result(folder, self._result(order, accuracy, late=wanted > allowed))
        return Ended(0, "", stopped=False)

    def _result(self, order: Order, accuracy: float, *, late: bool) -> Result:
        known = self.template
        assert known.data is not None
        names = [text.split('"')[1] for text in order.overrides if text.startswith("method={")]
        return known.model_copy(
            update={
                "method": names[-1] if names else "head",
                "status": "stopped" if late else "validated",
                "reason": "stopped at budget.minutes" if late else None,
                "recipe": known.recipe.model_copy(update={"hash": order.key.recipe}),
                "data": known.data.model_copy(update={"fingerprint": order.key.data}),
                "versions": {**known.versions, "code": order.key.code},
                "metrics": known.metrics.model_copy(update={"validation": {"accuracy": accuracy}}),
            }
        )

    @staticmethod
    def of(name: str, known: Mapping[str, Any], otherwise: Any) -> Any:
        """Return what is said of a run by its name, or of its rung."""
        return known.get(name, known.get(name.partition("-")[0], otherwise))
