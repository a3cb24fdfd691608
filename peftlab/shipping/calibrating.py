"""A run calibrated on rows that it was not trained on, and the same for what is exported of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peftlab.data.unseen import unseen_rows
from peftlab.errors import DataError, RunError, UserError
from peftlab.evaluation.abstention import fit_abstention
from peftlab.evaluation.decisions import probabilities
from peftlab.evaluation.intervals import Interval, verdict, wilson
from peftlab.evaluation.predictions import FILE_NAME as PREDICTIONS
from peftlab.evaluation.predictions import read_predictions
from peftlab.evaluation.routing import route, tempered
from peftlab.runs.calibration import Calibration, RowsFile, TestCheck, model_hash, write_calibration
from peftlab.runs.certificate import file_hash
from peftlab.runs.folder import now
from peftlab.runs.result_parts import Estimate

if TYPE_CHECKING:
    from peftlab.data.rows import Split, Splits
    from peftlab.recipe.records import Data, Recipe
    from peftlab.runs.result import Result

Chances = NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """What is to be promised, and of which model; the fields are those of `calibration.json`."""

    target: float
    confidence: float
    candidates: int
    model: str
    rows: RowsFile | None = None


@dataclass(frozen=True)
class Scored:
    """A finished run, its probabilities [rows, labels] on the rows to fit on, and on its test rows.

    `test` is None where the test rows were put aside. `candidates`: models that `rows` have chosen among. `model`: hash
    of the trained part. `file`: where `rows` are from, None for the validation rows.
    """

    result: Result
    splits: Splits
    rows: Split
    chances: Chances
    test: Chances | None
    candidates: int
    model: str
    file: RowsFile | None


def calibrate_run(
    folder: Path, target: float, confidence: float, say: Callable[[str], None], file: Path | None = None
) -> Calibration:
    """Fit temperature and threshold of the run in `folder`, on its validation rows or those of `file`; write them.

    Writes `calibration.json`, then the figure and the card that show it. Raises what `score_run` raises.
    """
    scored = score_run(folder, say, file)
    asked = Asked(target, confidence, scored.candidates, scored.model, scored.file)
    made = calibrate((scored.chances, scored.rows.labels), scored.test, scored.splits, asked)
    write_calibration(folder, made)
    _show(folder, scored, made)
    return made


def score_run(folder: Path, say: Callable[[str], None], file: Path | None = None) -> Scored:
    """Compute the probabilities of the validation rows, or of `file`'s, and read those of the test rows.

    Raises RunError where the run is not finished, UserError where its task has not one label a text or it was trained
    on its validation rows, DataError where its data are no longer those of the run, or rows of `file` do not fit.
    """
    from peftlab.evaluation.predictor import load_predictor

    result, recipe, splits = _finished(folder)
    if file is None and recipe.data.train_on_validation and recipe.evaluation.score_test:
        raise UserError(
            f"the run in {folder} was trained on its validation rows too (data.train_on_validation), so they say "
            "nothing of new texts; name a file of labelled rows that it has not seen with --rows, or train without them"
        )
    rows = splits.validation if file is None else unseen_rows(file, recipe.data, splits)
    used = None if file is None else RowsFile(path=str(file.resolve()), sha256=file_hash(file))
    say(f"scoring {len(rows):,} {'validation rows' if file is None else f'rows of {file}'}")
    predictor = load_predictor(folder, calibrated=False)
    chances = probabilities(predictor.logits(rows.texts, rows.pairs), multi_label=False)
    test = _test_chances(folder, splits) if result.status == "ok" else None
    candidates = _candidates(recipe, splits) if file is None else 1
    return Scored(result, splits, rows, chances, test, candidates, model_hash(folder), used)


def calibrate(
    fitted: tuple[Chances, NDArray[np.int64]], test: Chances | None, splits: Splits, asked: Asked
) -> Calibration:
    """Return the calibration of a model from probabilities and gold labels of the same rows; `test` only checks it."""
    fit = fit_abstention(*fitted, target=asked.target, confidence=asked.confidence, candidates=asked.candidates)
    made = Calibration(
        target=asked.target,
        confidence=asked.confidence,
        rows=asked.rows,
        candidates=asked.candidates,
        temperature=fit.temperature,
        threshold=fit.threshold,
        start=fit.start,
        rows_fitted=fit.rows_fitted,
        rows_tested=fit.rows_tested,
        routed=fit.routed,
        wrong=fit.wrong,
        coverage=_estimate(wilson(fit.routed, fit.rows_tested)),
        rows_needed=fit.rows_needed,
        test=None,
        data_fingerprint=splits.fingerprint,
        model=asked.model,
        created=now(),
    )
    return made if test is None else made.model_copy(update={"test": _check(made, test, splits.test.labels)})


def rows_again(promised: Calibration, data: Data, splits: Splits) -> Split:
    """Return the rows that a calibration was fitted on; DataError where they were in a file that is another now."""
    if promised.rows is None:
        return splits.validation
    file = Path(promised.rows.path)
    if not file.is_file() or file_hash(file) != promised.rows.sha256:
        how = "another now" if file.is_file() else "gone"
        raise DataError(
            f"{file}, whose rows the run was calibrated on, is {how}; restore it, or calibrate the run anew"
        )
    return unseen_rows(file, data, splits)


def calibrate_export(
    folder: Path,
    promised: Calibration,
    fitted: tuple[NDArray[np.float32], NDArray[np.int64]],
    test: NDArray[np.float32],
    splits: Splits,
) -> Calibration:
    """Write a calibration of the export in `folder`, with the promise that its run makes.

    `fitted` and `test` have the export's own logits: it may compute other probabilities than its run, in 8 bit for
    example, and the run's threshold would promise nothing there. An exact export gets the run's threshold again, up to
    rounding.
    """
    chances, checked = (probabilities(logits, multi_label=False) for logits in (fitted[0], test))
    asked = Asked(promised.target, promised.confidence, promised.candidates, promised.model, promised.rows)
    made = calibrate((chances, fitted[1]), checked, splits, asked)
    write_calibration(folder, made)
    return made


def _check(made: Calibration, chances: Chances, labels: NDArray[np.int64]) -> TestCheck:
    _, routed = route(chances, made)
    right = chances.argmax(axis=1) == labels
    count = int(routed.sum())
    accuracy = wilson(int(right[routed].sum()), count) if count else None
    return TestCheck(
        coverage=_estimate(wilson(count, len(labels))),
        accuracy=_estimate(accuracy) if accuracy is not None else None,
        verdict=verdict(accuracy, made.target) if accuracy is not None else None,
    )


def _estimate(interval: Interval) -> Estimate:
    return Estimate(value=interval.value, low=interval.low, high=interval.high, n=interval.n)


def _finished(folder: Path) -> tuple[Result, Recipe, Splits]:
    """Return result and recipe of the run in `folder`, and its rows, which must be those that it was trained on."""
    from peftlab.recipe.plugins import load_plugin
    from peftlab.runs.certificate import is_export
    from peftlab.runs.folder import run_recipe
    from peftlab.runs.model_record import read_model_record
    from peftlab.runs.result import read_result

    if is_export(folder):
        raise RunError(f"{folder} is an export; calibrate the run that it was made of, then export that again")
    result = read_result(folder)
    if result.status not in ("ok", "validated"):
        raise RunError(f"the run in {folder} has the status {result.status}; only a finished run is calibrated")
    recipe, record = run_recipe(folder), read_model_record(folder)
    if recipe.task.name != "classification" or record.multi_label:
        what = "gives a text any number of labels" if record.multi_label else f"has the task {recipe.task.name}"
        raise UserError(
            f"the run in {folder} {what}; calibrate promises how often the one label of a text is right, which is "
            "defined for classification with one label a text only"
        )
    splits: Splits = load_plugin("tasks", recipe.task.name).load_splits(recipe, recipe.task.config)
    if result.data is None or splits.fingerprint != result.data.fingerprint:
        raise DataError(
            f"the data of {recipe.path} are not those that the run was trained on (their fingerprints differ), so its "
            "validation rows may have been trained on; restore the files"
        )
    return result, recipe, splits


def _candidates(recipe: Recipe, splits: Splits) -> int:
    """Return how many models the validation rows chose among: planned checkpoints, times the strengths of a probe.

    Planned ones, since it was these rows too that stopped the training early, if anything did.
    """
    import math

    from peftlab.recipe.plugins import load_plugin
    from peftlab.training.linear_probe import STRENGTHS
    from peftlab.training.plan import make_plan

    solver, config = load_plugin("methods", recipe.method.name).SOLVER, recipe.method.config
    if solver == "gradient":
        plan = make_plan(recipe.train, recipe.evaluation, len(splits.train))
        checkpoints = math.ceil(plan.total_steps / plan.steps_per_evaluation)
        return checkpoints * (len(STRENGTHS) if recipe.head.init == "probe" else 1)
    return len(STRENGTHS) if solver == "linear_probe" and getattr(config, "c", None) == "auto" else 1


def _test_chances(folder: Path, splits: Splits) -> Chances:
    """Return the probabilities that the run gave its test rows when it was scored, [rows, labels]."""
    rows = list(read_predictions(folder / PREDICTIONS))
    if [row.id for row in rows] != list(splits.test.ids):
        raise RunError(f"{folder / PREDICTIONS} has not the test rows of the run; it is not as the run wrote it")
    return np.asarray([[row.probabilities[name] for name in splits.label_names] for row in rows])


def _show(folder: Path, scored: Scored, made: Calibration) -> None:
    """Draw the curve, and write the card anew with what is promised."""
    from peftlab.evaluation.abstention import risk_coverage
    from peftlab.reports.model_card import model_card
    from peftlab.reports.risk_coverage import Curve, write_risk_coverage
    from peftlab.runs.files import write_text
    from peftlab.runs.model_record import RECIPE

    splits, curves = scored.splits, dict[str, Curve]()
    for split, chances in ((scored.rows, scored.chances), (splits.test, scored.test)):
        if chances is not None:
            score = tempered(chances, made.temperature).max(axis=1)
            curves[split.name] = risk_coverage(score, chances.argmax(axis=1) == split.labels)
    write_risk_coverage(folder, made, curves)
    if scored.result.status == "ok":
        report = json.loads((folder / "data_report.json").read_text(encoding="utf-8"))
        recipe = (folder / RECIPE).read_text(encoding="utf-8")
        write_text(folder / "README.md", model_card(scored.result, recipe, report, made))
