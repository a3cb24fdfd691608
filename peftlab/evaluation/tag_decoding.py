"""From the scores of words to their tags: the best valid sequence (Viterbi), or the best tag of each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tag_schemes import may_follow
from peftlab.data.word_pieces import WordPieces
from peftlab.evaluation.forward import Passes, gathered

if TYPE_CHECKING:
    import torch
    from torch import nn

_SCORES = ("start_transitions", "transitions", "end_transitions")
_DECODED = 256  # sentences decoded together


def decoder(names: Sequence[str], crf: Any = None) -> Any:
    """Return a CRF of pytorch-crf that gives only sequences that IOB2 allows: it has minus infinity for all others.

    Its other scores of transitions are those that `crf` has learned, or zeros where that is None.
    """
    import torch
    from torchcrf import CRF

    made = CRF(len(names), batch_first=True)
    with torch.no_grad():
        for own in _SCORES:
            target = getattr(made, own)
            target.copy_(getattr(crf, own)) if crf is not None else target.zero_()
        for column, tag in enumerate(names):
            if not may_follow(None, tag):
                made.start_transitions[column] = -torch.inf
            for row, before in enumerate(names):
                if not may_follow(before, tag):
                    made.transitions[row, column] = -torch.inf
    return made.eval()


def decoding_scores(crf: Any) -> dict[str, NDArray[np.float32]]:
    """Return what a decoder adds up besides emissions: its `start_transitions`, `transitions` and `end_transitions`."""
    return {name: getattr(crf, name).detach().float().cpu().numpy() for name in _SCORES}


def decoder_with(scores: Mapping[str, NDArray[np.float32]]) -> Any:
    """Return the decoder whose `decoding_scores` these are; KeyError where one lacks."""
    import torch
    from torchcrf import CRF

    made = CRF(len(scores["start_transitions"]), batch_first=True)
    with torch.no_grad():
        for name in _SCORES:
            getattr(made, name).copy_(torch.from_numpy(scores[name]))
    return made.eval()


def best_paths(emissions: NDArray[np.float32], counts: NDArray[np.int64], crf: Any) -> list[tuple[int, ...]]:
    """Return the sequence of tags with the largest total score by `crf` for each sentence (Viterbi's algorithm).

    `emissions`: [sentences, words, tags], finite, of which the first `counts` [sentences] words count, one or more.
    """
    import torch

    mask = torch.arange(emissions.shape[1]) < torch.from_numpy(counts)[:, None]
    with torch.inference_mode():
        return [tuple(path) for path in crf.decode(torch.from_numpy(emissions), mask)]


def best_tags(emissions: NDArray[np.float32], counts: NDArray[np.int64]) -> list[tuple[int, ...]]:
    """Return the tag with the largest score of each word, whatever stands before it."""
    chosen = emissions.argmax(-1)
    return [tuple(map(int, chosen[row, :count])) for row, count in enumerate(counts)]


def word_logits(model: nn.Module, encoded: WordPieces, passes: Passes) -> list[NDArray[np.float32]]:
    """Return the logits of every word of each sentence, fp32, [words, tags], in evaluation mode.

    Batches are dealt out to all processes of `passes`, and the results put together in all of them.
    """
    import torch

    training = model.training
    model.eval()
    parts: list[tuple[int, NDArray[np.float32]]] = []
    with torch.inference_mode():
        for number, rows in enumerate(batches(encoded, passes.batch_size)):
            if number % passes.world != passes.rank:
                continue
            inputs, where = encoded.inputs(rows)
            logits = _forward(model, inputs, passes.device)
            for line, row in enumerate(rows):
                parts.append((int(row), logits[where[line, : int(encoded.counts[row])]]))
    model.train(training)
    every = dict(gathered(parts, passes.world))
    if len(every) != len(encoded):
        raise AssertionError(f"{len(every)} outputs for {len(encoded)} sentences: each must be scored exactly once")
    return [every[row] for row in range(len(encoded))]


def batches(encoded: WordPieces, size: int) -> list[NDArray[np.int64]]:
    """Return all sentences in batches of at most `size`, and of at most as many windows, longest first."""
    order = np.argsort(-encoded.lengths, kind="stable")
    windows = np.diff(encoded.rows)
    made: list[list[int]] = []
    held = 0
    for row in order.tolist():
        if not made or len(made[-1]) == size or held + int(windows[row]) > size:
            made.append([])
            held = 0
        made[-1].append(row)
        held += int(windows[row])
    return [np.asarray(rows, np.int64) for rows in made]


def padded(parts: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits of several sentences as one array, [sentences, most words, tags], and the words of each."""
    counts = np.asarray([len(part) for part in parts], np.int64)
    together = np.zeros((len(parts), int(counts.max(initial=0)), parts[0].shape[1]), np.float32)
    for row, part in enumerate(parts):
        together[row, : len(part)] = part
    return together, counts


def decode(parts: Sequence[NDArray[np.float32]], crf: Any) -> list[tuple[int, ...]]:
    """Return the tags of each sentence from its logits [words, tags], by `decoder`'s `crf`.

    Where it is None the best tag of each word. Sentences are decoded with others of like length; one without words has
    no tags.
    """
    order = sorted((row for row in range(len(parts)) if len(parts[row])), key=lambda row: -len(parts[row]))
    found: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(order), _DECODED):
        rows = order[start : start + _DECODED]
        emissions, counts = padded([parts[row] for row in rows])
        paths = best_tags(emissions, counts) if crf is None else best_paths(emissions, counts, crf)
        found.update(zip(rows, paths, strict=True))
    return [found.get(row, ()) for row in range(len(parts))]


def _forward(model: nn.Module, inputs: dict[str, torch.Tensor], device: torch.device) -> NDArray[np.float32]:
    logits = model(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits
    flat: NDArray[np.float32] = logits.float().reshape(-1, logits.shape[-1]).cpu().numpy()
    return flat
