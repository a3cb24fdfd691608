"""Texts from an encoder-decoder, and the probabilities that it gives to known ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.paired_tokens import IGNORED, PairedTokens, forced, forced_inputs
from peftlab.data.tokens import Tokens, batches_by_length, pad
from peftlab.encoders.anatomy import unwrapped
from peftlab.encoders.seq2seq import start_of
from peftlab.evaluation.forward import Passes, gathered
from peftlab.evaluation.generated_scores import Generated

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Search:
    """How outputs are searched for: `beams` at once (1: greedy), each of at most `tokens` new tokens.

    `length_penalty`: sums of log-probabilities are divided by the length to this power (Wu et al. 2016 in simple form).
    """

    beams: int
    tokens: int
    length_penalty: float = 1.0


def generate(model: nn.Module, sources: Tokens, tokenizer: Any, search: Search, passes: Passes) -> Generated:
    """Return what `model` makes of `sources`, each row once, in row order, in evaluation mode and with a cache.

    Rows of like length go together; with beams so many fewer at once. Batches are dealt out to all processes.
    """
    import torch

    training = model.training
    model.eval()
    generator: Any = unwrapped(model)
    settings = _settings(generator, search)
    parts: list[tuple[NDArray[np.int64], list[str], NDArray[np.int64], NDArray[np.bool_]]] = []
    with torch.inference_mode():
        size = max(1, passes.batch_size // search.beams)
        for number, rows in enumerate(batches_by_length(sources.lengths, size)):
            if number % passes.world != passes.rank:
                continue
            batch = {name: tensor.to(passes.device) for name, tensor in pad(sources, rows).items()}
            made = generator.generate(**batch, generation_config=settings).cpu().numpy()
            tokens, ended = _ends(made[:, 1:], settings.eos_token_id)
            texts = tokenizer.batch_decode(made, skip_special_tokens=True)
            parts.append((rows, [text.strip() for text in texts], tokens, ended))
    model.train(training)
    return _in_order(gathered(parts, passes.world), len(sources))


def gold_log_probabilities(model: nn.Module, encoded: PairedTokens, passes: Passes) -> NDArray[np.float32]:
    """Return the log-probability of each token of the targets under teacher forcing, [rows, longest target].

    0 where a target has no token. Two models that agree here to the last bit are the same model.
    """
    import torch

    training = model.training
    model.eval()
    made = forced(encoded.targets, start_of(unwrapped(model)))
    found = np.zeros((len(encoded), max(1, made.labels.width)), np.float32)
    with torch.inference_mode():
        for rows in batches_by_length(encoded.lengths, passes.batch_size):
            inputs, labels = forced_inputs(encoded.sources, made, rows)
            logits = model(**{name: tensor.to(passes.device) for name, tensor in inputs.items()}).logits
            labels = labels.to(passes.device)
            # Not log_softmax: a second array of the vocabulary's size would be held.
            chosen = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1).float()
            values = (chosen - logits.float().logsumexp(-1)).masked_fill(labels == IGNORED, 0.0)
            found[rows, : labels.shape[1]] = values.cpu().numpy()
    model.train(training)
    return found


def _settings(generator: Any, search: Search) -> Any:
    """Return the model's own settings of generation with those of `search` in their place."""
    import copy

    settings = copy.deepcopy(generator.generation_config)
    changes = {
        "num_beams": search.beams,
        "do_sample": False,
        "max_new_tokens": search.tokens,
        "max_length": None,
        "length_penalty": search.length_penalty if search.beams > 1 else None,
        "early_stopping": search.beams > 1,
        "use_cache": True,
        "decoder_start_token_id": start_of(generator),
    }
    settings.update(**changes)
    return settings


def _ends(made: NDArray[np.int64], end: int | Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return for each row of token ids, [rows, tokens], the tokens before its end, and whether there is one."""
    is_end = np.isin(made, np.atleast_1d(end))
    ended: NDArray[np.bool_] = np.any(is_end, axis=1)
    return np.where(ended, is_end.argmax(1), made.shape[1]).astype(np.int64), ended


def _in_order(
    parts: Sequence[tuple[NDArray[np.int64], list[str], NDArray[np.int64], NDArray[np.bool_]]], rows: int
) -> Generated:
    """Put the outputs of batches in row order; every row must have come exactly once."""
    places = np.concatenate([place for place, *_ in parts])
    if len(places) != rows or len(np.unique(places)) != rows:
        raise AssertionError(f"{len(places)} outputs for {rows} rows: each row must be generated exactly once")
    texts = [""] * rows
    tokens, ended = np.zeros(rows, np.int64), np.zeros(rows, bool)
    for place, some, counts, ends in parts:
        for row, text in zip(place.tolist(), some, strict=True):
            texts[row] = text
        tokens[place], ended[place] = counts, ends
    return Generated(texts, tokens, ended)
