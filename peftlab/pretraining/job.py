"""One pretraining from its recipe to a proven encoder folder and its result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from peftlab.encoders.hooks import Hooks
from peftlab.pretraining.predictions import batch_of, measure, row_losses, state_moments, taught_losses
from peftlab.pretraining.prepare import PACKED, Model, Prepared, first_model, prepare
from peftlab.pretraining.record import pretraining_result
from peftlab.recipe.plugins import load_plugin
from peftlab.recipe.resolve import recipe_hash, recipe_text
from peftlab.runs.environment import git_commit, versions
from peftlab.runs.files import write_text
from peftlab.runs.folder import write_environment
from peftlab.runs.model_record import RECIPE
from peftlab.runs.pretraining_result import (
    ENCODER,
    Predictability,
    PretrainingResult,
    write_pretraining_result,
)
from peftlab.training.announce import announce_stand_in
from peftlab.training.checkpoints import Progress, saved_progress
from peftlab.training.loop import Fitting
from peftlab.training.optimizers import make_optimizer, parameter_groups
from peftlab.training.placement import Placement, place
from peftlab.training.plan import Plan, make_plan
from peftlab.training.prepare import method_hooks
from peftlab.training.signals import StopWish, stop_on_signals
from peftlab.training.supervise import Supervision, train
from peftlab.training.tracking import check_trackers, start_trackers

if TYPE_CHECKING:
    from rich.console import Console

    from peftlab.recipe.pretraining import PretrainRecipe


@dataclass(frozen=True)
class PretrainJob:
    """A pretraining recipe to run in a folder, from the start or from its last checkpoint."""

    recipe: PretrainRecipe
    folder: Path
    resume: bool


@dataclass
class Known:
    """What a result can say so far, filled in as the job goes on."""

    started: float
    cpu: float
    placement: Placement
    notes: list[str]
    earlier: Progress | None
    prepared: Prepared | None = None
    model: Model | None = None
    plan: Plan | None = None
    progress: Progress | None = None
    held_out: Predictability | None = None


def run_pretraining(job: PretrainJob, console: Console) -> PretrainingResult | None:
    """Run `job` and return its result; None in all processes but the first. Raises what ended it, once written."""
    from accelerate import Accelerator

    recipe = job.recipe
    check_trackers(recipe.run.trackers)
    started, cpu = time.perf_counter(), time.process_time()
    accelerator = Accelerator(log_with=list(recipe.run.trackers) or None, project_dir=str(job.folder / "trackers"))
    placement = place(recipe.train, accelerator)
    earlier = saved_progress(job.folder / "checkpoints") if job.resume else None
    known = Known(started, cpu, placement, [], earlier)
    if placement.is_main and not job.resume:
        _write_start(job)

    def say(sentence: str) -> None:
        known.notes.append(sentence)
        console.print(sentence)

    try:
        with accelerator.main_process_first():
            known.prepared = prepare(recipe, job.folder, say)
        files = known.prepared.files
        if files is not None and files.is_stand_in:
            known.notes.append(announce_stand_in(files, console))
        told: dict[str, str | float | int] = {"recipe": recipe.name, "seed": recipe.train.seed}
        _solve(job, known, console, say, start_trackers(accelerator, recipe.run, told))
        accelerator.end_training()
        return _finish(job, known, console) if placement.is_main else None
    except (Exception, KeyboardInterrupt) as error:
        if placement.is_main:
            write_pretraining_result(job.folder, pretraining_result(job, known, error))
        raise


def _write_start(job: PretrainJob) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    write_text(job.folder / RECIPE, recipe_text(job.recipe))
    origin = {"name": job.recipe.name, "path": str(job.recipe.path.resolve()), "hash": recipe_hash(job.recipe)}
    write_environment(
        job.folder, {"kind": "pretraining", "recipe": origin, "versions": versions(), "git_commit": git_commit()}
    )


def _solve(
    job: PretrainJob, known: Known, console: Console, say: Callable[[str], None], track: Callable[..., None]
) -> None:
    import torch

    if known.prepared is None:
        raise AssertionError("called once the text is packed")
    recipe, place_, prepared = job.recipe, known.placement, known.prepared
    model = first_model(prepared, say, place_.precision)
    model.module.to(place_.device)
    rows = prepared.packed.train[0]
    plan = make_plan(recipe.train, recipe.evaluation, len(rows))
    known.model, known.plan = model, plan
    hooks = Hooks()
    if recipe.method is not None:
        method = load_plugin("methods", recipe.method.name)
        hooks = method_hooks(method, model.module, recipe.method.config, plan.total_steps, recipe.path)
    console.print(
        f"{model.counts.trainable:,} of {model.counts.total:,} parameters trained; {plan.steps_per_epoch:,} steps an "
        f"epoch, {plan.total_steps:,} in all, on {place_.device.type} with {place_.world} process(es) of "
        f"{place_.threads} threads, {place_.precision}"
    )
    torch.manual_seed(recipe.train.seed + 1_000_003 * (place_.rank + 1))
    with stop_on_signals() as wish:
        fitting = _fitting(prepared, model, plan, hooks, place_, wish)
        watch = Supervision(
            folder=job.folder,
            console=console,
            validate=lambda: measure(prepared, model, place_).model_dump(exclude={"predictions"}),
            metric="nll",
            lower_is_better=True,
            patience=recipe.evaluation.patience,
            checkpoint_every=recipe.run.checkpoint_every,
            identity={
                "recipe": recipe_hash(recipe),
                "text": prepared.text.sha256,
                "teacher": prepared.teacher.sha256 if prepared.teacher is not None else None,
                "processes": place_.world,
                "steps": plan.total_steps,
            },
            track=track,
            signal_number=lambda: wish.signal_number,
            continue_line=f"peftlab pretrain --resume {job.folder}",
            resume=job.resume,
        )
        known.progress = train(fitting, watch)
    if hooks.finish is not None:
        hooks.finish()
    known.held_out = measure(prepared, model, place_)


def _fitting(
    prepared: Prepared, model: Model, plan: Plan, hooks: Hooks, placement: Placement, wish: StopWish
) -> Fitting:
    recipe, rows = prepared.recipe, prepared.packed.train[0]
    rate = recipe.train.learning_rate
    if rate == "auto":
        raise AssertionError("the recipe is resolved")
    groups = parameter_groups(model.module, model.anatomy, recipe.optimizer, rate)
    return Fitting(
        model=model.module,
        lengths=np.full(len(rows), rows.shape[1], np.int64),
        batch=lambda wanted, epoch: batch_of(prepared, "train", wanted, epoch),
        row_weights=np.ones(len(rows), np.float32),
        row_losses=row_losses if recipe.teacher is None else taught_losses(recipe.teacher.weight),
        optimizer=make_optimizer(groups, recipe.optimizer, placement.device),
        plan=plan,
        schedule=recipe.train.schedule,
        clip=recipe.optimizer.clip,
        seed=recipe.train.seed,
        placement=placement,
        describe_rows=lambda wanted: f"sequences {', '.join(map(str, wanted[:8]))}",
        stop_asked=wish.asked,
        hooks=hooks,
        recompute=recipe.train.gradient_checkpointing,
    )


def _finish(job: PretrainJob, known: Known, console: Console) -> PretrainingResult:
    from peftlab.encoders.standardised import standardise
    from peftlab.pretraining.card import encoder_card
    from peftlab.pretraining.save import plain_model, save_encoder

    if known.prepared is None or known.model is None or known.held_out is None:
        raise AssertionError("called after training")
    result = pretraining_result(job, known, None)
    model = plain_model(known.model.module)
    if job.recipe.save.standardise:
        body = getattr(model, model.base_model_prefix)
        standardise(model, *state_moments(known.prepared, body, known.placement))
    save_encoder(model, known.prepared, job.folder / ENCODER, encoder_card(result, job.recipe))
    write_pretraining_result(job.folder, result)
    for name in ("checkpoints", PACKED):
        shutil.rmtree(job.folder / name, ignore_errors=True)
    held_out = known.held_out
    console.print(
        f"[bold]held-out perplexity {held_out.perplexity:.2f}[/bold] ({held_out.accuracy:.1%} of "
        f"{held_out.predictions:,} masked tokens right)"
    )
    console.print(
        f"encoder: {job.folder / ENCODER}; use it with: peftlab train RECIPE encoder.name={job.folder / ENCODER}"
    )
    return result
