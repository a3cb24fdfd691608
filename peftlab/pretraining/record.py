"""The result record of a pretraining, however it ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from peftlab.errors import Interrupted
from peftlab.recipe.resolve import recipe_hash
from peftlab.runs.environment import git_commit, versions
from peftlab.runs.pretraining_result import PretrainingResult, TextUsed
from peftlab.runs.result_parts import RecipeUsed, Seconds
from peftlab.training.checkpoints import saved_progress
from peftlab.training.outcome import peak_memory, where_it_ran

if TYPE_CHECKING:
    from peftlab.pretraining.job import Known, PretrainJob
    from peftlab.pretraining.prepare import Prepared


def pretraining_result(job: PretrainJob, known: Known, error: BaseException | None) -> PretrainingResult:
    """Return what is `known` of `job` as its result; `error` is what ended it, None where it went to its end."""
    recipe, prepared, model, plan, place_ = job.recipe, known.prepared, known.model, known.plan, known.placement
    progress = known.progress or saved_progress(job.folder / "checkpoints")
    earlier = known.earlier
    interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
    wall = time.perf_counter() - known.started + (earlier.seconds if earlier is not None else 0.0)
    cpu = time.process_time() - known.cpu + (earlier.cpu_seconds if earlier is not None else 0.0)
    return PretrainingResult(
        status="ok" if error is None else "interrupted" if interrupted else "failed",
        reason=None if error is None else str(error) or type(error).__name__,
        recipe=RecipeUsed(name=recipe.name, hash=recipe_hash(recipe)),
        started_from=_origin(prepared),
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
        memory=peak_memory(place_.device),
        tokens_per_second=progress.tokens / progress.seconds if progress is not None and progress.seconds else None,
        device=where_it_ran(place_),
        seed=recipe.train.seed,
        versions=versions(),
        git_commit=git_commit(),
        notes=tuple(known.notes),
    )


def _origin(prepared: Prepared | None) -> str | None:
    origin = None if prepared is None else prepared.files or prepared.donor
    return None if origin is None else origin.used


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
