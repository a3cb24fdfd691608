"""Equal tuning: the same number of learning-rate trials for every method by gradient, and no test row in any."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from peftlab.errors import MissingPackage, UserError
from peftlab.recipe.plugins import LearningRate, load_plugin
from peftlab.runs.result import Result
from peftlab.suites.execute import Ended
from peftlab.suites.orders import Order
from peftlab.suites.records import read_record
from peftlab.suites.run import Outcome, Places, plan_suite, run_suite
from peftlab.suites.schedule import on_this_machine
from peftlab.suites.tuning import learning_rates, open_studies

SUITE = """\
methods = ["tfidf", "head", "full"]
seeds = [5]
reference = "full"
overrides = ["train.epochs=2"]

[tuning]
trials = 2
seed = 9
overrides = ["train.epochs=1"]
"""


def tuned(suite: Path, folder: Path, do: Callable[..., Ended]) -> Outcome:
    """Run the suite with records and run folders in `folder`."""
    places = Places(folder / "records", folder / "work")
    plan = plan_suite(suite, lambda _: places, None)
    return run_suite(plan, places, on_this_machine(1, None, do), 1, Console(quiet=True))


def trial_records(folder: Path) -> dict[str, Result]:
    """Return the records of the trials by name."""
    found = {path.stem: read_record(path) for path in sorted((folder / "records" / "tuning").glob("*-lr*.json"))}
    return {name: record for name, record in found.items() if record is not None}


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, write_suite: Callable[..., Path], in_this_process: Callable[..., Ended]
) -> tuple[Path, Path, Outcome, list[Order]]:
    """The suite above, run: its file, its folder, its outcome, and what was done in order."""
    folder = tmp_path_factory.mktemp("tuned")
    suite = write_suite(folder, SUITE)
    orders: list[Order] = []

    def do(order: Order, *rest: Any) -> Ended:
        orders.append(order)
        return in_this_process(order, *rest)

    return suite, folder, tuned(suite, folder, do), orders


Done = tuple[Path, Path, Outcome, list[Order]]


def test_every_method_by_gradient_gets_the_same_number_of_trials(done: Done) -> None:
    """Full fine-tuning too; each within the range of its method, all before the first run."""
    _, folder, outcome, orders = done
    trials = trial_records(folder)
    assert sorted(trials) == ["full-lr0", "full-lr1", "head-lr0", "head-lr1"]
    assert [order.name for order in orders[4:]] == ["tfidf-s5", "head-s5", "full-s5"]
    assert [result.status for result in outcome.results.values()] == ["ok"] * 3
    summary = json.loads((folder / "records" / "tuning" / "summary.json").read_text(encoding="utf-8"))
    assert summary["trials_of_each_recipe"] == 2
    for method in ("head", "full"):
        usual = load_plugin("methods", method).LEARNING_RATE
        tried = summary["recipes"][method]["trials"]
        assert [line["record"] for line in tried] == [f"{method}-lr0.json", f"{method}-lr1.json"]
        assert all(usual.low < line["learning_rate"] < usual.high for line in tried)
    assert "tfidf" not in summary["recipes"]


def test_no_trial_scores_the_test_split(done: Done) -> None:
    """Its record has no test metric, no test rows and no predictions."""
    for record in trial_records(done[1]).values():
        assert record.status == "validated"
        assert record.metrics.test == {}
        assert record.data is not None
        assert "test" not in record.data.rows
        assert record.seeds["train"] == 9
    assert not list((done[1] / "records" / "tuning").glob("*.gz"))


def test_the_runs_take_the_rate_that_validation_chose(done: Done) -> None:
    _, folder, _, orders = done
    summary = json.loads((folder / "records" / "tuning" / "summary.json").read_text(encoding="utf-8"))
    trials = trial_records(folder)
    for method in ("head", "full"):
        known = summary["recipes"][method]
        best = max(known["trials"], key=lambda line: (line["validation"], -line["learning_rate"]))
        assert known["learning_rate"] == best["learning_rate"]
        for line in known["trials"]:
            assert line["validation"] == trials[line["record"][:-5]].metrics.validation[known["metric"]]
        (order,) = (one for one in orders if one.name == f"{method}-s5")
        assert f"train.learning_rate={best['learning_rate']!r}" in order.overrides


def test_a_second_time_no_trial_is_run(done: Done) -> None:
    suite, folder, first, _ = done
    before = {path: path.read_bytes() for path in (folder / "records").rglob("*") if path.is_file()}
    again = tuned(suite, folder, lambda *_: pytest.fail("something was run"))
    assert again.results == first.results
    assert {path: path.read_bytes() for path in (folder / "records").rglob("*") if path.is_file()} == before


def test_a_machine_that_shares_the_storage_takes_the_trials_over(
    write_suite: Callable[..., Path], in_this_process: Callable[..., Ended], tmp_path: Path
) -> None:
    """A database that two folders of records share: the second one does the run alone."""
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    text = SUITE.replace('"tfidf", "head", "full"', '"head"').replace('reference = "full"\n', "")
    suite = write_suite(tmp_path, text + f'storage = "{storage}"\n')
    tuned(suite, tmp_path / "first", in_this_process)
    orders: list[str] = []

    def do(order: Order, *rest: Any) -> Ended:
        orders.append(order.name)
        return in_this_process(order, *rest)

    tuned(suite, tmp_path / "second", do)
    assert orders == ["head-s5"]
    assert trial_records(tmp_path / "second") == trial_records(tmp_path / "first")


def test_where_every_trial_fails_the_runs_are_recorded_as_failed(
    write_suite: Callable[..., Path], in_this_process: Callable[..., Ended], tmp_path: Path
) -> None:
    """And the other recipes are run."""
    suite = write_suite(tmp_path, SUITE.replace('"tfidf", "head", "full"', '"tfidf", "full"'))

    def do(order: Order, *rest: Any) -> Ended:
        if "-lr" in order.name:
            return Ended(1, "Traceback (most recent call last):\nRuntimeError: no", stopped=False)
        return in_this_process(order, *rest)

    outcome = tuned(suite, tmp_path, do)
    assert outcome.failed == ["full-s5"]
    assert "every learning-rate trial of full failed" in (outcome.results["full-s5"].reason or "")
    assert outcome.results["tfidf-s5"].status == "ok"
    assert {record.status for record in trial_records(tmp_path).values()} == {"failed"}


@pytest.mark.parametrize(
    ("trials", "rates"),
    [(1, (1e-3,)), (2, (1e-4, 1e-2)), (3, (1e-4, 1e-3, 1e-2)), (5, (1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2))],
)
def test_rates_are_even_by_logarithm_around_the_default(trials: int, rates: tuple[float, ...]) -> None:
    assert learning_rates(LearningRate(low=1e-5, default=1e-3, high=1e-1), trials) == pytest.approx(rates)


def test_without_optuna_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackage, match=r'pip install "peftlab\[bench\]"'):
        open_studies("tiny", None, tmp_path)


@pytest.mark.parametrize("asked", ["sqlite:///{folder}/nowhere/shared.db", "nonsense://host/name"])
def test_a_storage_that_cannot_be_opened_is_said_in_a_sentence(asked: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tuning\.storage '.*' cannot be opened: "):
        open_studies("tiny", asked.format(folder=tmp_path), tmp_path)
