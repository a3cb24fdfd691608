"""Predicting masked tokens: the batches, the loss of a sequence, and how well held-out text is predicted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Batch
from peftlab.pretraining.masking import IGNORED, masked_batch
from peftlab.pretraining.prepare import Model, Prepared
from peftlab.runs.pretraining_result import Predictability
from peftlab.training.placement import Placement

if TYPE_CHECKING:
    import torch

_HELD_OUT_EPOCH = 2**31
"""Names the draw of the held-out masks, which are the same at every measurement; no training gets that far."""


def batch_of(prepared: Prepared, split: Literal["train", "held_out"], rows: NDArray[np.int64], epoch: int) -> Batch:
    """Return the sequences `rows` of a split with the masks of `epoch`."""
    ids, marks = prepared.packed.train if split == "train" else prepared.packed.held_out
    tokenizer, recipe = prepared.tokenizer, prepared.recipe
    batch = masked_batch(
        ids,
        marks,
        rows,
        recipe.masking,
        mask_id=tokenizer.mask_token_id,
        vocabulary=len(tokenizer),
        seed=recipe.train.seed,
        epoch=epoch,
    )
    if prepared.teacher is None or split == "held_out":
        return batch
    import torch

    return Batch({**batch.inputs, "whole": torch.from_numpy(ids[rows].astype(np.int64))}, batch.targets)


def taught_losses(weight: float) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """Return the loss of each sequence, [rows], where a teacher's states have `weight` in it."""

    def losses(logits: Any, targets: torch.Tensor) -> torch.Tensor:
        predicted, left = logits
        total: torch.Tensor = (1 - weight) * row_losses(predicted, targets) + weight * left
        return total

    return losses


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
            batch = batch_of(prepared, "held_out", own[start : start + recipe.evaluation.batch_size], _HELD_OUT_EPOCH)
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


def state_moments(prepared: Prepared, body: Any, placement: Placement) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation, [width] each, of the last states of `body` on held-out text without masks."""
    import torch

    recipe = prepared.recipe
    ids = prepared.packed.held_out[0][: recipe.evaluation.sequences].astype(np.int64)
    sums = torch.zeros(2, body.config.hidden_size, dtype=torch.float64)
    body.eval()
    with torch.inference_mode():
        for start in range(0, len(ids), recipe.evaluation.batch_size):
            given = torch.from_numpy(ids[start : start + recipe.evaluation.batch_size]).to(placement.device)
            states = body(input_ids=given).last_hidden_state.flatten(0, 1).double().cpu()
            sums += torch.stack([states.sum(0), states.square().sum(0)])
    mean, square = sums / ids.size
    deviation = (square - mean.square()).clamp(min=1e-12).sqrt()
    return mean.float().to(placement.device), deviation.float().to(placement.device)
