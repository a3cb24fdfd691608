"""Train by gradient: the loop, the best checkpoint, its proof and its test logits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.rows import SplitName
from peftlab.data.tokens import labelled_batches
from peftlab.encoders.hooks import Hooks
from peftlab.encoders.trainable import count_parameters
from peftlab.evaluation.forward import Passes
from peftlab.recipe.resolve import recipe_hash
from peftlab.training.ceilings import (
    MARGIN,
    TimeUp,
    asked_latency,
    check_memory,
    check_minutes,
    check_speed,
    memory_watch,
    padded,
    seconds_of_pass,
)
from peftlab.training.checkpoints import Progress
from peftlab.training.compiled import why_not
from peftlab.training.distillation import taught, taught_losses, taught_targets
from peftlab.training.frozen import frozen_outputs
from peftlab.training.head_start import start_from_probe
from peftlab.training.loop import Fitting
from peftlab.training.optimizers import make_optimizer, parameter_groups
from peftlab.training.outcome import Outcome, Sitting
from peftlab.training.passes import tokens_of_a_pass
from peftlab.training.plan import Plan
from peftlab.training.prefix import frozen_prefix
from peftlab.training.prepare import (
    Found,
    Model,
    affordable_model,
    estimate_peak_bytes,
    hooks_of,
    plan_of,
    tokenise_splits,
)
from peftlab.training.save import save_and_prove
from peftlab.training.signals import StopWish, stop_on_signals
from peftlab.training.supervise import Supervision, train


def solve_by_gradient(found: Found, sitting: Sitting) -> Outcome:
    """Train the recipe's model to the end, save it, prove it, and score the test split once.

    Raises Interrupted with the state saved, NonFiniteLoss, BudgetError before the first step, RoundTripError.
    """
    import torch

    recipe, place = found.recipe, sitting.placement
    built = time.perf_counter()
    model = affordable_model(found, device=place.device)
    built = time.perf_counter() - built
    whole, chances = taught(found, sitting.say)
    plan = plan_of(whole)
    hooks = hooks_of(found, model, plan)
    tokens = tokenise_splits(found)
    before = frozen_outputs(found, tokens["test"], sitting)
    lines = tokens["train"] if whole is found else whole.task.encode(whole.tokenizer, whole.splits.train, recipe)
    ending = _hold_plan(found, model, plan, tokens, sitting, built)
    if recipe.head.init == "probe" and not _has_checkpoint(sitting):
        start_from_probe(found, model, tokens, sitting)
    # Dropout differs between processes, and not from the draws that made the head.
    torch.manual_seed(recipe.train.seed + 1_000_003 * (place.rank + 1))
    _announce(model, plan, sitting)
    with stop_on_signals() as wish, frozen_prefix(found, model, place.device, sitting.say):
        over = TimeUp(sitting.clock, ending)
        fitting = _fitting(whole, model, lines, plan, hooks, sitting, lambda: over.asked() or wish.asked())
        if chances is not None:
            fitting = _with_teachers(fitting, whole, lines, chances, labelled=len(found.splits.train))
        watch = _supervision(found, model, tokens["validation"], plan, sitting, wish)
        progress = train(fitting, watch)
    ranks = hooks.finish() if hooks.finish is not None else None
    started = time.perf_counter()
    known = progress.best_metrics if ranks is None and place.precision == "fp32" else None
    validation = _settled(found, model, tokens["validation"], sitting, known) if found.validates else {}
    test_outputs = found.task.outputs(model.module, tokens["test"], recipe, _passes(found, sitting))
    seconds = time.perf_counter() - started
    saved = save_and_prove(found, model, tokens["test"], sitting)
    latency = asked_latency(found, model, tokens["validation"], place.device)
    return Outcome(
        test_outputs=test_outputs,
        validation=validation,
        trainable=model.counts.trainable,
        total=model.counts.total,
        embedding=model.counts.embedding,
        shipped_bytes=saved.shipped_bytes,
        new_modules=model.anatomy.new_modules,
        encoder=saved.encoder,
        best=_best(progress, plan, recipe.evaluation.metric),
        train_seconds=progress.seconds,
        test_seconds=seconds,
        tokens_per_second=progress.tokens / progress.seconds if progress.seconds else None,
        logit_difference=saved.difference,
        compared_rows=saved.rows,
        shipped=saved.shipped,
        surviving=count_parameters(model.module, model.anatomy).trainable if ranks is not None else None,
        ranks=ranks,
        quantised=saved.quantised,
        frozen_outputs=before,
        latency_ms=latency,
        stopped=_why_stopped(progress, plan, watch, sitting),
    )


def _hold_plan(
    found: Found, model: Model, plan: Plan, tokens: Mapping[SplitName, Any], sitting: Sitting, built: float
) -> float:
    """Refuse a plan that cannot keep the ceilings; return the seconds that the end of the run will take.

    `built`: seconds that loading the model took, which is done twice more to prove what was saved. TimeSpent where
    less time than that is left.
    """
    budget, device = found.recipe.budget, sitting.placement.device
    if budget.peak_memory_gb is not None:
        import psutil

        resident = psutil.Process().memory_info().rss
        size = 8 if found.recipe.optimizer.name == "adamw" else 2
        objective = found.task.objective(tokens["train"], found.splits, found.recipe, model.module, device)
        peak = estimate_peak_bytes(
            model,
            plan,
            tokens["train"].width,
            resident=resident,
            optimizer_bytes=size,
            most_tokens=tokens_of_a_pass(plan, sitting.placement, model.module, together=objective.rows_together),
            recompute=found.recipe.train.gradient_checkpointing,
        )
        check_memory(found.recipe, peak)
    check_speed(found, model, tokens["validation"], device)
    if budget.minutes is None:
        return 0.0
    a_token = seconds_of_pass(found, model, tokens["validation"], device)
    scored = 2 * padded(tokens["validation"]) + padded(tokens["test"])
    needed = MARGIN * (a_token * scored + 2 * built) + 1.0
    check_minutes(found.recipe, sitting.clock, needed)
    return needed


def _why_stopped(progress: Progress, plan: Plan, watch: Supervision, sitting: Sitting) -> str | None:
    """Return why training ended before the plan, where the time did it."""
    impatient = watch.patience is not None and progress.stale >= watch.patience
    if progress.step >= plan.total_steps or impatient:
        return None
    return (
        f"stopped at budget.minutes = {sitting.clock.minutes:g} after step {progress.step} of {plan.total_steps}, with "
        f"the best model so far; continue with: {watch.continue_line} budget.minutes=MORE"
    )


def _has_checkpoint(sitting: Sitting) -> bool:
    from peftlab.training.checkpoints import last_checkpoint

    return sitting.resume and last_checkpoint(sitting.folder / "checkpoints") is not None


def _announce(model: Model, plan: Plan, sitting: Sitting) -> None:
    if not sitting.placement.is_main:
        return
    place, counts = sitting.placement, model.counts
    sitting.console.print(
        f"{counts.trainable:,} of {counts.total:,} parameters trained ({counts.share:.2%}); newly initialised: "
        f"{', '.join(model.anatomy.new_modules) or 'none'}"
    )
    processes = f"{place.world} process{'es' if place.world > 1 else ''} of {place.threads} threads"
    sitting.console.print(
        f"{plan.rows:,} rows, {plan.steps_per_epoch} steps an epoch, {plan.total_steps} steps in all, on "
        f"{place.device.type} with {processes}, {place.precision}"
    )
    missing = why_not() if place.device.type == "cpu" else None
    if missing is not None:
        sitting.say(f"steps: torch and numpy do what would be compiled, which takes longer: {missing}")


def _fitting(
    found: Found, model: Model, tokens: Any, plan: Plan, hooks: Hooks, sitting: Sitting, stop: Callable[[], bool]
) -> Fitting:
    recipe, splits, place = found.recipe, found.splits, sitting.placement
    objective = found.task.objective(tokens, splits, recipe, model.module, place.device)
    rate = recipe.train.learning_rate
    if rate == "auto":
        rate = found.method.LEARNING_RATE.default
    groups = parameter_groups(model.module, model.anatomy, recipe.optimizer, rate)
    return Fitting(
        model=model.module,
        lengths=tokens.lengths,
        batch=objective.batch,
        row_weights=objective.row_weights,
        row_losses=objective.row_losses,
        rows_together=objective.rows_together,
        optimizer=make_optimizer(groups, recipe.optimizer, place.device),
        plan=plan,
        schedule=recipe.train.schedule,
        clip=recipe.optimizer.clip,
        seed=recipe.train.seed,
        placement=place,
        describe_rows=partial(_describe, splits.train.ids),
        stop_asked=stop,
        hooks=hooks,
        recompute=recipe.train.gradient_checkpointing,
    )


def _with_teachers(
    fitting: Fitting, whole: Found, tokens: Any, chances: NDArray[np.float32], *, labelled: int
) -> Fitting:
    """Return `fitting` with the teachers' probabilities [rows, labels] as targets beside the labels."""
    asked, splits = whole.recipe.distill, whole.splits
    if asked is None:
        raise AssertionError("somebody teaches")
    targets = taught_targets(splits.train.labels, labelled, chances)
    losses = taught_losses(fitting.row_losses, asked, classes=len(splits.label_names), multi_label=splits.multi_label)
    return replace(fitting, batch=labelled_batches(tokens, targets), row_losses=losses)


def _supervision(found: Found, model: Model, tokens: Any, plan: Plan, sitting: Sitting, wish: StopWish) -> Supervision:
    recipe, splits = found.recipe, found.splits
    metric = recipe.evaluation.metric
    return Supervision(
        folder=sitting.folder,
        console=sitting.console,
        validate=partial(_validate, found, model, tokens, sitting) if found.validates else None,
        metric=metric,
        lower_is_better=metric in found.task.LOWER_IS_BETTER,
        patience=recipe.evaluation.patience,
        checkpoint_every=recipe.run.checkpoint_every,
        identity={
            "recipe": recipe_hash(recipe),
            "data": splits.fingerprint,
            "teachers": found.lessons.fingerprint if found.lessons is not None else None,
            "encoder": found.files.sha256 if found.files is not None else None,
            "processes": sitting.placement.world,
            "steps": plan.total_steps,
        },
        track=sitting.track,
        signal_number=lambda: wish.signal_number,
        continue_line=f"peftlab train --resume {sitting.folder}",
        resume=sitting.resume,
        look=memory_watch(recipe),
        in_time=recipe.budget.minutes is not None,
    )


def _validate(found: Found, model: Model, tokens: Any, sitting: Sitting) -> dict[str, float]:
    """Return the validation metrics that choose a checkpoint, in the training's arithmetic.

    Those of the result are computed at the end (`_settled`) in the weights' own types, as the shipped model computes.
    """
    splits, recipe = found.splits, found.recipe
    with sitting.placement.autocast():
        outputs = found.task.outputs(model.module, tokens, recipe, _passes(found, sitting))
    values: dict[str, float] = found.task.point_metrics(outputs, splits.validation, splits, recipe.task.config)
    return values


def _settled(
    found: Found, model: Model, tokens: Any, sitting: Sitting, known: Mapping[str, float] | None
) -> dict[str, float]:
    """Return the validation metrics of the trained model, after its task fitted on these rows what it fits, if any.

    `known`: what validation measured of this very model in the arithmetic it is shipped in, if it did; not computed
    again where the task fits nothing.
    """
    splits, recipe = found.splits, found.recipe
    settle = getattr(found.task, "settle", None)
    if settle is None and known is not None:
        return dict(known)
    outputs = found.task.outputs(model.module, tokens, recipe, _passes(found, sitting))
    if settle is not None:
        settle(model.module, outputs, splits.validation)
    values: dict[str, float] = found.task.point_metrics(outputs, splits.validation, splits, recipe.task.config)
    return values


def _passes(found: Found, sitting: Sitting) -> Passes:
    place = sitting.placement
    return Passes(found.recipe.evaluation.batch_size, place.device, place.rank, place.world)


def _describe(ids: Sequence[str], rows: NDArray[np.int64]) -> str:
    shown = ", ".join(ids[row] for row in rows[:8])
    return shown if len(rows) <= 8 else f"{shown} and {len(rows) - 8} more"


def _best(progress: Progress, plan: Plan, metric: str) -> dict[str, Any] | None:
    if progress.best_step is None or progress.best_value is None:
        return None
    epoch = round(plan.epoch_of(progress.best_step), 4)
    return {"step": progress.best_step, "epoch": epoch, "metric": metric, "value": progress.best_value}
