"""The training loop: a generator that yields one Step per optimizer update and neither logs nor saves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Batch, epoch_groups
from peftlab.encoders.hooks import Hooks
from peftlab.encoders.trainable import trained_parameters
from peftlab.errors import NonFiniteLoss, PeftlabError
from peftlab.training.cpu_steps import cheaper_steps
from peftlab.training.first_token import first_token_only
from peftlab.training.passes import forward_passes, tokens_of_a_pass
from peftlab.training.plan import Plan, learning_rate_factor
from peftlab.training.recompute import layers_recomputed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from peftlab.training.placement import Placement


@dataclass(frozen=True)
class Fitting:
    """Everything that the loop needs.

    `lengths` [rows] are tokens; `batch(rows, epoch)` gives the model's inputs and the targets of these rows.
    `row_losses(logits, targets)` gives the loss of each row; `row_weights` [rows] is what each row counts in the mean.
    `rows_together` as in `Objective`. `hooks` is what the method does beside the gradient. `describe_rows` names rows
    for people. `recompute`: gradient checkpointing of every layer.
    """

    model: nn.Module
    lengths: NDArray[np.int64]
    batch: Callable[[NDArray[np.int64], int], Batch]
    row_weights: NDArray[np.float32]
    row_losses: Callable[[Tensor, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    plan: Plan
    schedule: str
    clip: float | None
    seed: int
    placement: Placement
    describe_rows: Callable[[NDArray[np.int64]], str]
    stop_asked: Callable[[], bool]
    hooks: Hooks = field(default_factory=Hooks)
    rows_together: bool = False
    recompute: bool = False


@dataclass(frozen=True)
class Step:
    """One optimizer update. `number` counts from 1; `loss` is the weighted mean over the group's rows and the penalty.

    `micro_rows` is the size of a forward pass, smaller than planned after running out of memory. `stop` says that some
    process was asked to stop.
    """

    number: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    rows: int
    micro_rows: int
    seconds: float
    stop: bool


def fit(fitting: Fitting, *, done: int = 0, micro_rows: int | None = None, scaler: Any = None) -> Iterator[Step]:
    """Yield each optimizer step after the first `done` ones, up to the plan's last.

    `micro_rows` continues a run that had to shrink its forward pass; `scaler` is a `torch.amp.GradScaler` for fp16.
    Raises NonFiniteLoss as soon as a group's loss is NaN or infinite, before the weights are touched.
    """
    most = tokens_of_a_pass(fitting.plan, fitting.placement, fitting.model, together=fitting.rows_together)
    fitting = replace(fitting, plan=replace(fitting.plan, most_tokens=most))
    with (
        first_token_only(fitting.model),
        cheaper_steps(fitting.model, fitting.placement.device) as masks,
        layers_recomputed(fitting.model, masks) if fitting.recompute else nullcontext(),
    ):
        yield from _steps(fitting, done=done, micro_rows=micro_rows, scaler=scaler)


def _steps(fitting: Fitting, *, done: int, micro_rows: int | None, scaler: Any) -> Iterator[Step]:
    plan = fitting.plan
    micro = micro_rows or plan.micro_rows
    parameters = list(trained_parameters(fitting.model).values())
    fitting.model.train()
    epoch, groups = -1, list[NDArray[np.int64]]()
    for index in range(done, plan.total_steps):
        started = time.perf_counter()
        if index // plan.steps_per_epoch != epoch:
            epoch = index // plan.steps_per_epoch
            groups = epoch_groups(fitting.lengths, plan.group_rows, seed=fitting.seed, epoch=epoch)
        rows = groups[index % plan.steps_per_epoch]
        factor = learning_rate_factor(index, plan, fitting.schedule)
        for group in fitting.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        share, micro = _gradients(fitting, rows, epoch, micro, scaler)
        loss, stop = _reduce(fitting, parameters, share)
        if not math.isfinite(loss):
            raise NonFiniteLoss(
                f"the loss became {loss} at step {index + 1} (learning rate {group['lr']:.3g}), in the rows "
                f"{fitting.describe_rows(rows)}; lower train.learning_rate, or look at these rows"
            )
        norm, updated = _update(fitting, parameters, scaler)
        if fitting.hooks.after_step is not None:
            fitting.hooks.after_step(index + 1, updated)
        fitting.optimizer.zero_grad(set_to_none=True)
        yield Step(
            number=index + 1,
            loss=loss,
            learning_rate=fitting.optimizer.param_groups[0]["peak_lr"] * factor,
            gradient_norm=norm,
            tokens=int(fitting.lengths[rows].sum()),
            rows=len(rows),
            micro_rows=micro,
            seconds=time.perf_counter() - started,
            stop=stop,
        )
        fitting.model.train()


def _gradients(fitting: Fitting, rows: NDArray[np.int64], epoch: int, micro: int, scaler: Any) -> tuple[Tensor, int]:
    """Accumulate the gradients of one group; out of memory, halve the forward pass and start the group again."""
    import torch

    while True:
        state = _random_state(fitting.placement.device)
        try:
            return _accumulate(fitting, rows, epoch, micro, scaler), micro
        except torch.OutOfMemoryError as error:
            problem = error
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):
                raise
            problem = error  # type: ignore[assignment] # the CPU allocator has no class of its own
        if micro <= 1 or fitting.placement.world > 1:
            raise PeftlabError(
                f"out of memory in a forward pass of {micro} rows; lower train.batch_size (and raise "
                "train.accumulation by as much to keep the same training) or encoder.max_length"
            ) from problem
        micro = max(1, micro // 2)
        fitting.optimizer.zero_grad(set_to_none=True)
        if fitting.placement.device.type == "cuda":
            torch.cuda.empty_cache()
        _set_random_state(state, fitting.placement.device)


def _accumulate(fitting: Fitting, rows: NDArray[np.int64], epoch: int, micro: int, scaler: Any) -> Tensor:
    """Return this process's share of the group's loss; gradients of that share are added to the parameters.

    The one place where the loss is scaled: every row's loss counts its weight over the weight of the whole group, so
    that neither the size of a forward pass, nor the number of processes, nor a short last group changes the mean.
    """
    import torch

    place = fitting.placement
    weight = float(fitting.row_weights[rows].sum(dtype=np.float64))
    total = torch.zeros((), device=place.device)
    for together in forward_passes(fitting.lengths[rows], micro, fitting.plan.most_tokens):
        own = rows[together][place.rank :: place.world]
        if len(own) == 0:
            continue
        batch = fitting.batch(own, epoch)
        inputs = {name: tensor.to(place.device, non_blocking=True) for name, tensor in batch.inputs.items()}
        shares = torch.from_numpy(fitting.row_weights[own] / weight).to(place.device)
        with place.autocast():
            logits = fitting.model(**inputs).logits
        loss = (fitting.row_losses(logits, batch.targets.to(place.device)) * shares).sum()
        (scaler.scale(loss) if scaler is not None else loss).backward()
        total += loss.detach()
    if fitting.hooks.penalty is not None:
        term = fitting.hooks.penalty() / place.world
        (scaler.scale(term) if scaler is not None else term).backward()
        total += term.detach()
    return total


def _reduce(fitting: Fitting, parameters: list[nn.Parameter], loss: Tensor) -> tuple[float, bool]:
    """Sum gradients, loss and stop wishes over the processes; return the group's loss and whether any wants to stop."""
    import torch

    stop = fitting.stop_asked()
    if fitting.placement.world == 1:
        return float(loss), stop  # a device sync, paid once a step so that a NaN is seen before the update
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    said = torch.tensor([float(loss), float(stop)], device=loss.device)
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients] + [said])
    torch.distributed.all_reduce(flat)
    place = 0
    for gradient in gradients:
        gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
        place += gradient.numel()
    return float(flat[-2]), bool(flat[-1] > 0)


def _update(fitting: Fitting, parameters: list[nn.Parameter], scaler: Any) -> tuple[float, bool]:
    """Clip, then update the weights; return the norm of the gradient before clipping, and whether weights changed."""
    import torch

    if scaler is not None:
        scaler.unscale_(fitting.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(parameters, fitting.clip if fitting.clip is not None else math.inf)
    if scaler is None:
        fitting.optimizer.step()
        return float(norm), True
    scale = scaler.get_scale()
    scaler.step(fitting.optimizer)
    scaler.update()
    return float(norm), scaler.get_scale() >= scale  # lowered: the gradients overflowed and the step was left out


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    import torch

    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    import torch

    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
