"""Logits of many rows from one model, in any number of processes, each row exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Tokens, batches_by_length, pad

if TYPE_CHECKING:
    import torch
    from torch import nn

Forward = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]
"""From `input_ids`, `attention_mask` and perhaps `token_type_ids`, [rows, tokens], to logits, [rows, labels]."""


@dataclass(frozen=True)
class Passes:
    """How rows are put through a model: `batch_size` at a time, on `device`, dealt out to `world` processes."""

    batch_size: int
    device: torch.device
    rank: int = 0
    world: int = 1


def as_forward(model: nn.Module, device: torch.device) -> Forward:
    """Return `model`, in evaluation mode, as a function of arrays."""
    import torch

    model.eval()

    def forward(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            batch = {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}
            logits: NDArray[np.float32] = model(**batch).logits.float().cpu().numpy()
        return logits

    return forward


def each_token(forward: Forward, width: int) -> Forward:
    """Return `forward`, whose logits are [rows, tokens, labels], so that they are [rows, `width`, labels].

    A token's logits stand at its own place in its text, whatever pads it; behind the last one there are zeros.
    """

    def aligned(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        logits = forward(inputs)
        mask = inputs["attention_mask"].astype(bool)
        made = np.zeros((len(logits), width, logits.shape[-1]), np.float32)
        for row, own in enumerate(mask):
            made[row, : int(own.sum())] = logits[row][own]
        return made

    return aligned


def logits_through(forward: Forward, tokens: Tokens, batch_size: int) -> NDArray[np.float32]:
    """Return the logits of all rows of `tokens`, [rows, labels], in row order."""
    parts = [
        (rows, forward({name: tensor.numpy() for name, tensor in pad(tokens, rows).items()}))
        for rows in batches_by_length(tokens.lengths, batch_size)
    ]
    return _in_order(parts, len(tokens))


def logits_of(
    model: nn.Module,
    tokens: Tokens,
    *,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    advance: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return the logits of all rows of `tokens`, fp32, [rows, labels], in evaluation mode and the weights' own types.

    Batches are dealt out to the `world` processes and the results put together in all of them. `advance(rows)` is
    called after each batch. The mode of `model` is put back.
    """
    import torch

    training = model.training
    model.eval()
    rows: list[NDArray[np.int64]] = []
    outputs: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for number, batch_rows in enumerate(batches_by_length(tokens.lengths, batch_size)):
            if number % world != rank:
                continue
            batch = {name: tensor.to(device) for name, tensor in pad(tokens, batch_rows).items()}
            outputs.append(model(**batch).logits.float().cpu().numpy())
            rows.append(batch_rows)
            if advance is not None:
                advance(len(batch_rows))
    model.train(training)
    return _in_order(gathered(list(zip(rows, outputs, strict=True)), world), len(tokens))


def pooled_features(
    model: Any,
    tokens: Tokens,
    *,
    batch_size: int,
    device: torch.device,
    advance: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return what the last linear layer of a pooled classifier reads, fp32, [rows, hidden size]: frozen embeddings."""
    import torch

    training = model.training
    model.eval()
    parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    with torch.inference_mode():
        for batch_rows in batches_by_length(tokens.lengths, batch_size):
            batch = {name: tensor.to(device) for name, tensor in pad(tokens, batch_rows).items()}
            hidden = model.encoder(**batch).last_hidden_state
            parts.append((batch_rows, model.pool(hidden, batch["attention_mask"]).float().cpu().numpy()))
            if advance is not None:
                advance(len(batch_rows))
    model.train(training)
    return _in_order(parts, len(tokens))


def gathered(parts: list[Any], world: int) -> list[Any]:
    """Return the parts of all `world` processes, in all of them."""
    if world == 1:
        return parts
    import torch

    everyone: list[list[Any]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(everyone, parts)
    return [part for share in everyone for part in share]


def _in_order(parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]], rows: int) -> NDArray[np.float32]:
    """Put the outputs of batches in row order; every row must have come exactly once."""
    places = np.concatenate([place for place, _ in parts])
    if len(places) != rows or len(np.unique(places)) != rows:
        raise AssertionError(f"{len(places)} outputs for {rows} rows: each row must be scored exactly once")
    values = np.concatenate([value for _, value in parts])
    ordered = np.empty_like(values)
    ordered[places] = values
    return ordered
