"""Drive the loop: validate, keep the best, stop early, save what a kill must not lose."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.encoders.trainable import trained_parameters
from peftlab.errors import Interrupted, TimeSpent, UserError
from peftlab.training.checkpoints import (
    Checkpoint,
    Progress,
    last_checkpoint,
    load_checkpoint,
    load_weights,
    random_state,
    save_best,
    save_checkpoint,
    set_random_state,
)
from peftlab.training.journal import add_line, start_lines
from peftlab.training.loop import Fitting, Step, fit
from peftlab.training.progress import Bar, bar

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Supervision:
    """What to watch and where to keep it.

    `validate()` returns the metrics of the model as it is; `metric` among them decides, higher being better unless
    `lower_is_better`. Where it is None nothing decides, and the last step is kept. `identity` is what a continued
    run must share with the checkpoint. `track(values, step)` tells the trackers. `signal_number()` is the signal
    that asked to stop, or 0. `continue_line` is the command line that goes on after a stop. `look()` is called after
    each step and raises what must end the run. `in_time` says that training stops for the time it may take.
    """

    folder: Path
    console: Console
    validate: Callable[[], Mapping[str, float]] | None
    metric: str
    lower_is_better: bool
    patience: int | None
    checkpoint_every: int | None
    identity: Mapping[str, Any]
    track: Callable[[Mapping[str, float], int], None]
    signal_number: Callable[[], int]
    continue_line: str
    resume: bool
    look: Callable[[], None] = lambda: None
    in_time: bool = False


def train(fitting: Fitting, watch: Supervision) -> Progress:
    """Train to the end of the plan, of patience or of the time, then put the best validated weights into the model.

    Raises Interrupted, with the state saved, when a signal asked to stop; TimeSpent, likewise, when the time was over
    before the model had its final size.
    """
    import torch

    scaler = torch.amp.GradScaler(fitting.placement.device.type) if fitting.placement.precision == "fp16" else None
    progress = _continue(fitting, watch, scaler) if watch.resume else None
    if progress is None:
        progress = Progress(step=0, micro_rows=fitting.plan.micro_rows)
    main = fitting.placement.is_main
    if main:
        start_lines(watch.folder / "metrics.jsonl", done=progress.step)
    steps = fit(fitting, done=progress.step, micro_rows=progress.micro_rows, scaler=scaler)
    cpu_before, before = time.process_time(), progress
    with bar(watch.console, "training", fitting.plan.total_steps, done=progress.step, shown=main) as drawn:
        while not _out_of_patience(progress, watch):
            step = next(steps, None)
            if step is None:
                break
            if main and step.micro_rows < progress.micro_rows:
                watch.console.print(_smaller_pass(step.micro_rows, fitting.rows_together))
            progress = _account(progress, step, before, time.process_time() - cpu_before)
            _report(fitting, watch, step, progress, drawn)
            watch.look()
            due = fitting.plan.validates_after(step.number)
            if due and watch.validate is not None:
                progress = _validated(fitting, watch, watch.validate, progress, drawn)
            every = watch.checkpoint_every
            if due or step.stop or (every is not None and step.number % every == 0):
                _save(fitting, watch, progress, scaler)
            if step.stop and watch.in_time and not watch.signal_number():
                progress = _best_so_far(fitting, watch, progress, drawn)
                _save(fitting, watch, progress, scaler)
                break
            if step.stop:
                number = watch.signal_number() or 15
                raise Interrupted(
                    number,
                    f"stopped after step {step.number} of {fitting.plan.total_steps}; continue with: "
                    f"{watch.continue_line}",
                )
    if progress.best_step is not None:
        load_weights(watch.folder / "checkpoints" / f"best-{progress.best_step}", fitting.model)
    return progress


def _best_so_far(fitting: Fitting, watch: Supervision, progress: Progress, drawn: Bar) -> Progress:
    """Validate where no model was validated yet, so that there is a best one."""
    if progress.step < fitting.hooks.settled_from:
        raise TimeSpent(
            f"the minutes of the budget were over after step {progress.step} of {fitting.plan.total_steps}, before the "
            f"model had its final size; continue with: {watch.continue_line} budget.minutes=MORE"
        )
    if progress.best_step is not None or watch.validate is None:
        return progress
    return _validated(fitting, watch, watch.validate, progress, drawn)


def _out_of_patience(progress: Progress, watch: Supervision) -> bool:
    return watch.patience is not None and progress.stale >= watch.patience


def _smaller_pass(rows: int, together: bool) -> str:
    what = "the training stays the same" if not together else "each row is told from fewer others from here on"
    return f"out of memory: a forward pass now takes {rows} rows; {what}"


def _account(progress: Progress, step: Step, before: Progress, cpu: float) -> Progress:
    return replace(
        progress,
        step=step.number,
        micro_rows=step.micro_rows,
        tokens=progress.tokens + step.tokens,
        seconds=progress.seconds + step.seconds,
        cpu_seconds=before.cpu_seconds + cpu,
    )


def _report(fitting: Fitting, watch: Supervision, step: Step, progress: Progress, drawn: Bar) -> None:
    if not fitting.placement.is_main:
        return
    rate = step.tokens / step.seconds
    values = {"loss": step.loss, "learning_rate": step.learning_rate, "gradient_norm": step.gradient_norm}
    line = {"step": step.number, "epoch": round(fitting.plan.epoch_of(step.number), 4), **values}
    add_line(watch.folder / "metrics.jsonl", {**line, "rows": step.rows, "tokens_per_second": round(rate, 1)})
    watch.track({**values, "tokens_per_second": rate}, step.number)
    best = f"  best {watch.metric} {progress.best_value:.4f}" if progress.best_value is not None else ""
    drawn.advance(1, f"loss {step.loss:.4f}{best}  {rate:,.0f} tokens/s")


def _validated(
    fitting: Fitting, watch: Supervision, validate: Callable[[], Mapping[str, float]], progress: Progress, drawn: Bar
) -> Progress:
    """Validate, note the metrics, and keep the weights if they are the best so far.

    A model that has not come to its final size can neither be the best, nor use up patience.
    """
    started = time.perf_counter()
    drawn.advance(0, "validating")
    metrics = dict(validate())
    if watch.metric not in metrics:
        raise UserError(
            f"evaluation.metric {watch.metric!r} is undefined on the validation split; choose one of "
            f"{', '.join(metrics)}, or a larger validation split"
        )
    value = metrics[watch.metric]
    best = progress.best_value
    settled = progress.step >= fitting.hooks.settled_from
    better = settled and (best is None or (value < best if watch.lower_is_better else value > best))
    if better:
        progress = replace(progress, best_step=progress.step, best_value=value, best_metrics=metrics, stale=0)
    elif settled:
        progress = replace(progress, stale=progress.stale + 1)
    if fitting.placement.is_main:
        if better:
            save_best(watch.folder / "checkpoints", progress.step, fitting.model)
        epoch = round(fitting.plan.epoch_of(progress.step), 4)
        seconds = round(time.perf_counter() - started, 3)
        line = {"step": progress.step, "epoch": epoch, "validation": metrics, "best": better, "seconds": seconds}
        add_line(watch.folder / "metrics.jsonl", line)
        watch.track({f"validation/{name}": value for name, value in metrics.items()}, progress.step)
        mark = (
            f"best {progress.best_value:.4f} at step {progress.best_step}" if settled else "not yet at its final size"
        )
        watch.console.print(
            f"epoch {epoch:g}, step {progress.step} of {fitting.plan.total_steps}: "
            f"validation {watch.metric} {value:.4f}  ({'best so far' if better else mark})"
        )
    return progress


def _save(fitting: Fitting, watch: Supervision, progress: Progress, scaler: Any) -> None:
    """Save the whole state; every process gives its random state, the first one writes."""
    own = random_state(fitting.placement.device)
    everyone: list[Mapping[str, Any]] = [own]
    if fitting.placement.world > 1:
        import torch

        gathered: list[Any] = [None] * fitting.placement.world
        torch.distributed.all_gather_object(gathered, own)
        everyone = gathered
    if not fitting.placement.is_main:
        return
    save_checkpoint(
        watch.folder / "checkpoints",
        Checkpoint(
            progress=progress,
            weights=trained_parameters(fitting.model),
            optimizer=fitting.optimizer.state_dict(),
            random=tuple(everyone),
            extra={
                "scaler": scaler.state_dict() if scaler is not None else None,
                "method": fitting.hooks.state() if fitting.hooks.state is not None else None,
            },
            identity=watch.identity,
        ),
    )


def _continue(fitting: Fitting, watch: Supervision, scaler: Any) -> Progress | None:
    """Put the newest checkpoint's state back and return its progress; None where there is none."""
    path = last_checkpoint(watch.folder / "checkpoints")
    if path is None:
        return None
    saved = load_checkpoint(path, watch.identity)
    load_weights(path, fitting.model)
    fitting.optimizer.load_state_dict(dict(saved.optimizer))
    if scaler is not None and saved.extra["scaler"] is not None:
        scaler.load_state_dict(saved.extra["scaler"])
    if fitting.hooks.restore is not None:
        fitting.hooks.restore(saved.extra["method"])
    set_random_state(saved.random[fitting.placement.rank], fitting.placement.device)
    if fitting.placement.is_main:
        watch.console.print(f"continuing after step {saved.progress.step} of {fitting.plan.total_steps}")
    return saved.progress
