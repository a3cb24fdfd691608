"""The result record of a run, however it ended."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Any

from peftlab.errors import Interrupted, PeftlabError, TimeSpent
from peftlab.evaluation.intervals import verdict
from peftlab.recipe.resolve import recipe_hash
from peftlab.runs.environment import git_commit, versions
from peftlab.runs.folder import now
from peftlab.runs.result import Result, TaskScores, scored
from peftlab.runs.result_parts import (
    Best,
    DataUsed,
    Distilled,
    EncoderUsed,
    Metrics,
    Parameters,
    RecipeUsed,
    RoundTrip,
    Seconds,
    Target,
)
from peftlab.training.ceilings import against_ceilings
from peftlab.training.outcome import peak_memory, where_it_ran

if TYPE_CHECKING:
    from peftlab.training.job import Job, Start
    from peftlab.training.outcome import Measured, Outcome
    from peftlab.training.placement import Placement
    from peftlab.training.prepare import Found


def finished_result(
    job: Job,
    found: Found,
    placement: Placement,
    outcome: Outcome,
    scores: TaskScores | None,
    start: Start,
    notes: list[str],
) -> Result:
    """Return the result of a run that went to its end; `scores` is None where the test rows were put aside."""
    told = scored(scores.to_dict()) if scores is not None else None
    asked = job.recipe.evaluation.target
    target = None
    if asked is not None and scores is not None:
        target = Target(asked=asked, verdict=verdict(scores.metrics[found.task.HEADLINE], asked))
    seconds = _seconds(start, train=outcome.train_seconds, test=outcome.test_seconds)
    always = _always(job, found, placement, start, notes, outcome.quantised)
    parameters = Parameters(
        trainable=outcome.trainable,
        surviving=outcome.surviving,
        total=outcome.total,
        embedding=outcome.embedding,
        shipped_bytes=outcome.shipped_bytes,
        shipped=outcome.shipped,
        newly_initialised=outcome.new_modules,
    )
    return Result(
        status="stopped" if outcome.stopped is not None else "ok" if scores is not None else "validated",
        reason=outcome.stopped,
        budget=against_ceilings(job.recipe.budget, parameters, always["memory"], seconds.total, outcome.latency_ms),
        metrics=Metrics(validation=dict(outcome.validation), test=told.metrics if told is not None else {}),
        scores=told.scores if told is not None else None,
        tables=told.tables if told is not None else (),
        facts=told.facts if told is not None else {},
        target=target,
        parameters=parameters,
        ranks=dict(outcome.ranks) if outcome.ranks is not None else None,
        best=Best(**outcome.best) if outcome.best is not None else None,
        round_trip=RoundTrip(max_logit_difference=outcome.logit_difference, rows=outcome.compared_rows),
        seconds=seconds,
        tokens_per_second=outcome.tokens_per_second,
        **always,
    )


def ended_result(
    job: Job, found: Found | None, placement: Placement, start: Start, error: BaseException, notes: list[str]
) -> Result:
    """Return the result of a run that `error` ended; the traceback is kept where the failure is ours."""
    ours = not isinstance(error, (PeftlabError, KeyboardInterrupt))
    interrupted = isinstance(error, (Interrupted, TimeSpent, KeyboardInterrupt))
    return Result(
        status="interrupted" if interrupted else "failed",
        reason=str(error) or type(error).__name__,
        traceback="".join(traceback.format_exception(error)) if ours else None,
        seconds=_seconds(start),
        **_always(job, found, placement, start, notes),
    )


def _seconds(start: Start, *, train: float | None = None, test: float | None = None) -> Seconds:
    """Return the durations up to now; of a sitting that a kill ended, what its last checkpoint knows counts."""
    wall = time.perf_counter() - start.wall + start.earlier_wall
    return Seconds(train=train, test=test, total=wall, cpu=time.process_time() - start.cpu + start.earlier_cpu)


def _always(
    job: Job,
    found: Found | None,
    placement: Placement,
    start: Start,
    notes: list[str],
    quantised: Measured | None = None,
) -> dict[str, Any]:
    """Return the fields that every result has."""
    recipe = job.recipe
    return {
        "recipe": RecipeUsed(name=recipe.name, hash=recipe_hash(recipe)),
        "task": recipe.task.name,
        "method": recipe.method.name,
        "encoder": _encoder(found, recipe.encoder.name if recipe.encoder is not None else None, quantised),
        "stand_in": found is not None and found.files is not None and found.files.is_stand_in,
        "data": _data(found),
        "distilled": _distilled(found),
        "memory": quantised.memory if quantised is not None else peak_memory(placement.device),
        "device": where_it_ran(placement),
        "seeds": {
            "train": recipe.train.seed,
            "split": recipe.data.split_seed if recipe.data.split_seed is not None else recipe.train.seed,
        },
        "versions": versions() | {"code": start.code},
        "git_commit": git_commit(),
        "notes": tuple(notes),
        "started": start.moment,
        "finished": now(),
    }


def _encoder(found: Found | None, requested: str | None, quantised: Measured | None) -> EncoderUsed:
    if found is None or found.files is None:
        return EncoderUsed(requested=requested)
    files = found.files
    return EncoderUsed(
        requested=files.requested,
        used=files.used,
        revision=files.revision or f"sha256:{files.sha256}",
        license=files.license,
        quantised=quantised.report if quantised is not None else None,
    )


def _distilled(found: Found | None) -> Distilled | None:
    if found is None or found.lessons is None or found.recipe.distill is None:
        return None
    return Distilled(
        teachers=found.recipe.distill.teachers,
        fingerprint=found.lessons.fingerprint,
        unlabelled=len(found.lessons.unlabelled),
    )


def _data(found: Found | None) -> DataUsed | None:
    if found is None:
        return None
    splits = found.splits
    counted = [splits.train]
    counted += [splits.validation] if found.validates else []
    counted += [splits.test] if found.recipe.evaluation.score_test else []
    synthetic = splits.report.get("synthetic")
    return DataUsed(
        fingerprint=splits.fingerprint,
        source=dict(splits.source),
        rows={split.name: len(split) for split in counted},
        synthetic=bool(synthetic),
        language=splits.report.get("language"),
    )
