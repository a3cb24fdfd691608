"""One pretraining from its recipe to a proven encoder folder and its result."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.errors import Interrupted
from peftlab.pretraining.masking import IGNORED, masked_batch
from peftlab.pretraining.prepare import PACKED, Model, Prepared, build, prepare
from peftlab.recipe.resolve import recipe_hash, recipe_text
from peftlab.runs.environment import git_commit, peak_resident_bytes, processor_name, versions
from peftlab.runs.files import write_text
from peftlab.runs.folder import write_environment
from peftlab.runs.model_record import RECIPE
from peftlab.runs.pretraining_result import (
    ENCODER,
    Predictability,
    PretrainingResult,
    TextUsed,
    write_pretraining_result,
)
from peftlab.runs.result_parts import Device, Memory, RecipeUsed, Seconds
from peftlab.training.checkpoints import Progress, saved_progress
from peftlab.training.loop import Fitting
from peftlab.training.optimizers import make_optimizer, parameter_groups
from peftlab.training.placement import Placement, place
from peftlab.training.plan import Plan, make_plan
from peftlab.training.signals import StopWish, stop_on_signals
from peftlab.training.supervise import Supervision, train
from peftlab.training.tracking import check_trackers, start_trackers

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from peftlab.recipe.pretraining import PretrainRecipe

_HELD_OUT_EPOCH = 2**31
"""Names the draw of the held-out masks, which are the same at every measurement; no training gets that far."""


@dataclass(frozen=True)
class PretrainJob:
    """A pretraining recipe to run in a folder, from the start or from its last checkpoint."""

    recipe: PretrainRecipe
    folder: Path
    resume: bool


@dataclass
class _Known:
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
    known = _Known(started, cpu, placement, [], earlier)
    if placement.is_main and not job.resume:
        _write_start(job)

    def say(sentence: str) -> None:
        known.notes.append(sentence)
        console.print(sentence)

    try:
        with accelerator.main_process_first():
            known.prepared = prepare(recipe, job.folder, say)
        told: dict[str, str | float | int] = {"recipe": recipe.name, "seed": recipe.train.seed}
        _solve(job, known, console, start_trackers(accelerator, recipe.run, told))
        accelerator.end_training()
        return _finish(job, known, console) if placement.is_main else None
    except (Exception, KeyboardInterrupt) as error:
        if placement.is_main:
            write_pretraining_result(job.folder, _result(job, known, error))
        raise


def _write_start(job: PretrainJob) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    write_text(job.folder / RECIPE, recipe_text(job.recipe))
    origin = {"name": job.recipe.name, "path": str(job.recipe.path.resolve()), "hash": recipe_hash(job.recipe)}
    write_environment(
        job.folder, {"kind": "pretraining", "recipe": origin, "versions": versions(), "git_commit": git_commit()}
    )


def _solve(job: PretrainJob, known: _Known, console: Console, track: Callable[..., None]) -> None:
    import torch

    if known.prepared is None:
        raise AssertionError("called once the text is packed")
    recipe, place_, prepared = job.recipe, known.placement, known.prepared
    tokenizer = prepared.tokenizer
    model = build(recipe, prepared.files, vocabulary=len(tokenizer), padding=tokenizer.pad_token_id)
    model.module.to(place_.device)
    rows = prepared.packed.train[0]
    plan = make_plan(recipe.train, recipe.evaluation, len(rows))
    known.model, known.plan = model, plan
    console.print(
        f"{model.counts.trainable:,} of {model.counts.total:,} parameters trained; {plan.steps_per_epoch:,} steps an "
        f"epoch, {plan.total_steps:,} in all, on {place_.device.type} with {place_.world} process(es) of "
        f"{place_.threads} threads, {place_.precision}"
    )
    torch.manual_seed(recipe.train.seed + 1_000_003 * (place_.rank + 1))
    with stop_on_signals() as wish:
        fitting = _fitting(recipe, prepared, model, plan, place_, wish)
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
                "processes": place_.world,
                "steps": plan.total_steps,
            },
            track=track,
            signal_number=lambda: wish.signal_number,
            continue_line=f"peftlab pretrain --resume {job.folder}",
            resume=job.resume,
        )
        known.progress = train(fitting, watch)
    known.held_out = measure(prepared, model, place_)


def _fitting(
    recipe: PretrainRecipe, prepared: Prepared, model: Model, plan: Plan, placement: Placement, wish: StopWish
) -> Fitting:
    rows = prepared.packed.train[0]
    rate = recipe.train.learning_rate
    if rate == "auto":
        raise AssertionError("the recipe is resolved")
    groups = parameter_groups(model.module, model.anatomy, recipe.optimizer, rate)
    return Fitting(
        model=model.module,
        lengths=np.full(len(rows), rows.shape[1], np.int64),
        batch=lambda wanted, epoch: _masked(prepared, "train", wanted, epoch),
        row_weights=np.ones(len(rows), np.float32),
        row_losses=row_losses,
        optimizer=make_optimizer(groups, recipe.optimizer, placement.device),
        plan=plan,
        schedule=recipe.train.schedule,
        clip=recipe.optimizer.clip,
        seed=recipe.train.seed,
        placement=placement,
        describe_rows=lambda wanted: f"sequences {', '.join(map(str, wanted[:8]))}",
        stop_asked=wish.asked,
    )


def _masked(prepared: Prepared, split: str, rows: Any, epoch: int) -> Any:
    ids, marks = prepared.packed.train if split == "train" else prepared.packed.held_out
    tokenizer, recipe = prepared.tokenizer, prepared.recipe
    return masked_batch(
        ids,
        marks,
        rows,
        recipe.masking,
        mask_id=tokenizer.mask_token_id,
        vocabulary=len(tokenizer),
        seed=recipe.train.seed,
        epoch=epoch,
    )


def row_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the predicted tokens of each sequence, [rows], in fp32.

    `logits`: [rows, predictions, vocabulary]; `targets`: [rows, predictions], `IGNORED` where there is none.
    """
    from torch.nn import functional

    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED
    )
    return losses.view(targets.shape).sum(1) / (targets != IGNORED).sum(1).clamp(min=1)


def measure(prepared: Prepared, model: Model, placement: Placement) -> Predictability:
    """Predict the masked tokens of the held-out sequences, dealt out to the processes."""
    import torch

    recipe = prepared.recipe
    count = min(len(prepared.packed.held_out[0]), recipe.evaluation.sequences)
    own = np.arange(count)[placement.rank :: placement.world]
    sums = torch.zeros(3, dtype=torch.float64, device=placement.device)
    training = model.module.training
    model.module.eval()
    with torch.inference_mode():
        for start in range(0, len(own), recipe.evaluation.batch_size):
            batch = _masked(prepared, "held_out", own[start : start + recipe.evaluation.batch_size], _HELD_OUT_EPOCH)
            inputs = {name: tensor.to(placement.device) for name, tensor in batch.inputs.items()}
            targets = batch.targets.to(placement.device)
            logits = model.module(**inputs).logits.float()
            known = targets != IGNORED
            nll = torch.nn.functional.cross_entropy(logits[known], targets[known], reduction="sum")
            right = (logits[known].argmax(-1) == targets[known]).sum()
            sums += torch.stack([nll.double(), right.double(), known.sum().double()])
    model.module.train(training)
    if placement.world > 1:
        torch.distributed.all_reduce(sums)
    total, right_ones, predictions = sums.tolist()
    nll_mean = total / predictions
    return Predictability(
        nll=nll_mean,
        perplexity=math.exp(min(nll_mean, 700.0)),
        accuracy=right_ones / predictions,
        predictions=int(predictions),
    )


def _finish(job: PretrainJob, known: _Known, console: Console) -> PretrainingResult:
    from peftlab.pretraining.card import encoder_card
    from peftlab.pretraining.save import plain_model, save_encoder

    if known.prepared is None or known.model is None or known.held_out is None:
        raise AssertionError("called after training")
    result = _result(job, known, None)
    save_encoder(
        plain_model(known.model.module), known.prepared, job.folder / ENCODER, encoder_card(result, job.recipe)
    )
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


def _result(job: PretrainJob, known: _Known, error: BaseException | None) -> PretrainingResult:
    import torch

    recipe, prepared, model, plan, place_ = job.recipe, known.prepared, known.model, known.plan, known.placement
    progress = known.progress or saved_progress(job.folder / "checkpoints")
    earlier = known.earlier
    cuda = place_.device.type == "cuda"
    interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
    wall = time.perf_counter() - known.started + (earlier.seconds if earlier is not None else 0.0)
    cpu = time.process_time() - known.cpu + (earlier.cpu_seconds if earlier is not None else 0.0)
    return PretrainingResult(
        status="ok" if error is None else "interrupted" if interrupted else "failed",
        reason=None if error is None else str(error) or type(error).__name__,
        recipe=RecipeUsed(name=recipe.name, hash=recipe_hash(recipe)),
        started_from=prepared.files.used if prepared is not None and prepared.files is not None else None,
        method=recipe.method.name if recipe.method is not None else None,
        text=_text(prepared) if prepared is not None else None,
        vocabulary=len(prepared.tokenizer) if prepared is not None else None,
        architecture=_shape(model.module.config) if model is not None else {},
        trainable=model.counts.trainable if model is not None else None,
        total=model.counts.total if model is not None else None,
        steps=progress.step if progress is not None else 0,
        epochs=round(plan.epoch_of(progress.step), 4) if progress is not None and plan is not None else 0.0,
        tokens=progress.tokens if progress is not None else 0,
        held_out=known.held_out,
        best_step=progress.best_step if progress is not None else None,
        seconds=Seconds(train=progress.seconds if progress is not None else None, total=wall, cpu=cpu),
        memory=Memory(
            peak_rss_bytes=peak_resident_bytes(),
            peak_device_bytes=torch.cuda.max_memory_allocated(place_.device) if cuda else None,
        ),
        tokens_per_second=progress.tokens / progress.seconds if progress is not None and progress.seconds else None,
        device=Device(
            type=place_.device.type,
            name=torch.cuda.get_device_name(place_.device) if cuda else processor_name(),
            threads=place_.threads,
            processes=place_.world,
        ),
        seed=recipe.train.seed,
        versions=versions(),
        git_commit=git_commit(),
        notes=tuple(known.notes),
    )


def _text(prepared: Prepared) -> TextUsed:
    packed = prepared.packed
    return TextUsed(
        names=prepared.text.names,
        sha256=prepared.text.sha256,
        lines=packed.lines,
        passed_over=packed.passed_over,
        length=packed.length,
        train_sequences=len(packed.train[0]),
        held_out_sequences=len(packed.held_out[0]),
        unknown_share=packed.unknown_share,
    )


def _shape(config: Any) -> dict[str, int]:
    return {
        "layers": int(config.num_hidden_layers),
        "hidden_size": int(config.hidden_size),
        "heads": int(config.num_attention_heads),
        "positions": int(config.max_position_embeddings),
    }
