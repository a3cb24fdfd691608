"""One run from its recipe to its result: in whatever way it ends, `result.json` says how."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from peftlab.evaluation.predictions import FILE_NAME as PREDICTIONS
from peftlab.evaluation.predictions import VALIDATION_FILE
from peftlab.recipe.records import Recipe
from peftlab.recipe.resolve import recipe_hash, recipe_text
from peftlab.runs.code import code_hash
from peftlab.runs.environment import git_commit, versions
from peftlab.runs.files import write_text
from peftlab.runs.folder import now, write_environment
from peftlab.runs.model_record import RECIPE
from peftlab.runs.result import FILE_NAME, read_result
from peftlab.training.announce import announce_stand_in
from peftlab.training.ceilings import check_kept
from peftlab.training.checkpoints import saved_progress
from peftlab.training.clock import Clock
from peftlab.training.curate import FOLDER, curated
from peftlab.training.frozen import PREFIX, BesideFrozen
from peftlab.training.outcome import Outcome, Sitting
from peftlab.training.placement import place
from peftlab.training.prepare import Found, find_inputs
from peftlab.training.tracking import check_trackers, start_trackers

if TYPE_CHECKING:
    from rich.console import Console

    from peftlab.runs.result import Result, TaskScores


@dataclass(frozen=True)
class Job:
    """A recipe to run in a folder, from the start or from its last checkpoint."""

    recipe: Recipe
    folder: Path
    resume: bool


@dataclass(frozen=True)
class Start:
    """When a sitting began, by the calendar, the process's clock and CPU seconds; and what earlier sittings took.

    `code`: the hash of the code as it was then (see `code_hash`).
    """

    moment: datetime
    wall: float
    cpu: float
    earlier_wall: float
    earlier_cpu: float
    code: str


def run_job(job: Job, console: Console) -> Result | None:
    """Run `job` and return its result; None in all processes but the first. Raises what ended the run, once written.

    The run folder then holds recipe, environment, data report, metric lines, trained part, predictions, scores,
    figures and model card.
    """
    from accelerate import Accelerator

    from peftlab.runs.result import write_result
    from peftlab.training.record import ended_result

    notes = list[str]()
    earlier = saved_progress(job.folder / "checkpoints") if job.resume else None
    start = Start(
        moment=now(),
        wall=time.perf_counter(),
        cpu=time.process_time(),
        earlier_wall=max(earlier.seconds if earlier is not None else 0.0, _sat_before(job)),
        earlier_cpu=earlier.cpu_seconds if earlier is not None else 0.0,
        code=code_hash(
            job.recipe.method.name, job.recipe.task.name, curators=[choice.name for choice in job.recipe.curate]
        ),
    )
    check_trackers(job.recipe.run.trackers)
    accelerator = Accelerator(log_with=list(job.recipe.run.trackers) or None, project_dir=str(job.folder / "trackers"))
    placement = place(job.recipe.train, accelerator)
    if placement.is_main and not job.resume:
        _write_start(job)

    def say(sentence: str) -> None:
        notes.append(sentence)
        console.print(sentence)

    found: Found | None = None
    try:
        report = job.folder / "data_report.json" if placement.is_main else None
        with accelerator.main_process_first():
            found = find_inputs(job.recipe, report_path=report, say=say)
            kept = job.folder / FOLDER
            found = curated(found, kept, device=placement.device, say=say, write=placement.is_main)
        _announce(found, console)
        sitting = Sitting(
            job.folder,
            console,
            placement,
            say,
            start_trackers(accelerator, job.recipe.run, _told(job.recipe)),
            job.resume,
            Clock(start.wall, start.earlier_wall, job.recipe.budget.minutes),
        )
        outcome = _solve(found, sitting)
        accelerator.end_training()
        return _finish(job, found, sitting, outcome, start, notes) if placement.is_main else None
    except (Exception, KeyboardInterrupt) as error:
        if placement.is_main:
            write_result(job.folder, ended_result(job, found, placement, start, error, notes))
        raise


def _sat_before(job: Job) -> float:
    """Return the seconds that the former sittings took, as the last one that could say so has written."""
    if not job.resume or not (job.folder / FILE_NAME).is_file():
        return 0.0
    return read_result(job.folder).seconds.total


def _told(recipe: Recipe) -> dict[str, str | float | int]:
    """Return what trackers show of a run."""
    return {
        "recipe": recipe.name,
        "method": recipe.method.name,
        "encoder": recipe.encoder.name if recipe.encoder is not None else "",
        "learning_rate": float(recipe.train.learning_rate) if recipe.train.learning_rate != "auto" else 0.0,
        "epochs": recipe.train.epochs,
        "batch_size": recipe.train.batch_size * recipe.train.accumulation,
        "seed": recipe.train.seed,
    }


def _write_start(job: Job) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    write_text(job.folder / RECIPE, recipe_text(job.recipe))
    origin = {"name": job.recipe.name, "path": str(job.recipe.path.resolve()), "hash": recipe_hash(job.recipe)}
    write_environment(job.folder, {"recipe": origin, "versions": versions(), "git_commit": git_commit()})


def _announce(found: Found, console: Console) -> None:
    """Say what the run uses; a stand-in in a box that cannot be missed."""
    files, splits = found.files, found.splits
    if files is not None and files.is_stand_in:
        announce_stand_in(files, console)
    elif files is not None:
        console.print(f"encoder {files.used} from {files.folder}")
    shown = (splits.train, *([splits.validation] if found.validates else []), splits.test)
    rows = ", ".join(f"{len(split):,} {split.name}" for split in shown)
    labels = found.task.labels(splits)
    counted = f" {len(labels)} labels," if labels else ""
    console.print(f"data: {rows} rows,{counted} from {splits.source['used']}")


def _solve(found: Found, sitting: Sitting) -> Outcome:
    solver = found.method.SOLVER
    if solver == "gradient":
        from peftlab.training.solve_gradient import solve_by_gradient

        return solve_by_gradient(found, sitting)
    if solver == "linear_probe":
        from peftlab.training.solve_probe import solve_by_probe

        return solve_by_probe(found, sitting)
    from peftlab.training.solve_own import solve_by_itself

    return solve_by_itself(found, sitting)


def _finish(job: Job, found: Found, sitting: Sitting, outcome: Outcome, start: Start, notes: list[str]) -> Result:
    """Score, write predictions, result, figures and card; then remove the checkpoints, which nothing needs any more."""
    import shutil

    from peftlab.runs.result import write_result
    from peftlab.training.record import finished_result

    scored = job.recipe.evaluation.score_test
    # Without test rows the logits in their place are those of the validation rows.
    _keep_predictions(job, found, outcome, PREDICTIONS if scored else VALIDATION_FILE)
    scores = _score_test(found, outcome) if scored else None
    result = finished_result(job, found, sitting.placement, outcome, scores, start, notes)
    check_kept(job.recipe, result.budget)
    if scored:
        _write_report(job, found, sitting, result)
    result = result.model_copy(update={"notes": tuple(notes)})
    write_result(job.folder, result)
    if result.status != "stopped":
        shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
    _tell(job, result, found.task, sitting.console)
    return result


def _keep_predictions(job: Job, found: Found, outcome: Outcome, file_name: str) -> None:
    splits, config = found.splits, found.recipe.task.config
    found.task.write_predictions(job.folder / file_name, outcome.test_outputs, splits.test, splits, config)


def _score_test(found: Found, outcome: Outcome) -> TaskScores:
    splits, config = found.splits, found.recipe.task.config
    scores: TaskScores = found.task.score(outcome.test_outputs, splits.test, splits, config)
    if outcome.frozen_outputs is None:
        return scores
    return BesideFrozen(scores, found.task.score(outcome.frozen_outputs, splits.test, splits, config))


def _write_report(job: Job, found: Found, sitting: Sitting, result: Result) -> None:
    from peftlab.reports.figures import write_figures
    from peftlab.reports.model_card import model_card

    try:
        for sentence in write_figures(job.folder, result):
            sitting.say(sentence)
        card = model_card(result, recipe_text(job.recipe), found.splits.report)
        write_text(job.folder / "README.md", card)
    except Exception as error:
        # A trained and proved model is not thrown away for a figure that could not be drawn.
        sitting.say(f"figures and model card could not be written: {type(error).__name__}: {error}")


def _tell(job: Job, result: Result, task: ModuleType, console: Console) -> None:
    from peftlab.reports.wording import predict_line

    if result.status == "stopped":
        console.print(f"[bold yellow]stopped[/bold yellow]: {result.reason}")
    if not result.metrics.test:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.validation.items())
        console.print(f"[bold]test not scored[/bold], as evaluation.score_test says; validation: {shown}")
        return
    parameters = result.parameters
    headline = task.HEADLINE
    best, before = result.metrics.test[headline], result.metrics.test.get(f"{PREFIX}{headline}")
    console.print(
        f"[bold]test {headline} {best.value:.4f}[/bold] (95 % interval {best.low:.4f} to {best.high:.4f}, "
        f"n = {best.n:,})"
    )
    if before is not None:
        console.print(
            f"the encoder without training: {before.value:.4f} (95 % interval {before.low:.4f} to {before.high:.4f})"
        )
    if result.target is not None:
        console.print(f"target {result.target.asked:g}: {result.target.verdict.replace('_', ' ')}")
    if parameters is not None:
        left = f", {parameters.surviving:,} are left" if parameters.surviving is not None else ""
        console.print(
            f"trained {parameters.trainable:,} of {parameters.total:,} parameters ({parameters.trainable_share:.2%})"
            f"{left}; shipped: {parameters.shipped_bytes / 1e6:.2f} MB in {job.folder / 'trained'}"
        )
    console.print(
        f"report: {job.folder / 'README.md'}, figures beside it; numbers: {job.folder / 'result.json'}; each test row: "
        f"{job.folder / 'predictions.jsonl'}"
    )
    console.print(f"try it: {predict_line(str(job.folder), result.task)}")
