"""Which tokens are predicted, drawn anew for each epoch from seed, epoch and sequence alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Batch
from peftlab.pretraining.packing import BEGINS, SPECIAL
from peftlab.recipe.pretraining import Masking

IGNORED = -100
"""Target of a place that is no prediction: rows have different numbers of them."""


def masked_batch(
    ids: NDArray[Any],
    marks: NDArray[np.uint8],
    rows: NDArray[np.int64],
    settings: Masking,
    *,
    mask_id: int,
    vocabulary: int,
    seed: int,
    epoch: int,
) -> Batch:
    """Return the sequences `rows` with words masked as in BERT: `input_ids` [rows, length], `positions`, targets.

    `positions` and the targets [rows, most predictions of a row] say which places are predicted, and as what; the
    surplus has position 0 and target `IGNORED`. A row's draw depends on nothing but (`seed`, `epoch`, row).
    """
    import torch

    inputs = ids[rows].astype(np.int64)
    chosen = []
    for place, row in enumerate(rows):
        generator = np.random.default_rng([seed, epoch, int(row)])
        positions = choose_words(marks[row], settings.share, generator)
        chosen.append((positions, inputs[place, positions].copy()))
        kind = generator.random(len(positions))
        replaced = kind >= settings.keep
        by_random = replaced & (kind < settings.keep + settings.random)
        values = np.where(by_random, generator.integers(0, vocabulary, len(positions)), mask_id)
        inputs[place, positions[replaced]] = values[replaced]
    most = max(1, *(len(positions) for positions, _ in chosen))
    places = np.zeros((len(rows), most), np.int64)
    targets = np.full((len(rows), most), IGNORED, np.int64)
    for number, (positions, wanted) in enumerate(chosen):
        places[number, : len(positions)] = positions
        targets[number, : len(wanted)] = wanted
    given = {"input_ids": torch.from_numpy(inputs), "positions": torch.from_numpy(places)}
    return Batch(given, torch.from_numpy(targets))


def choose_words(marks: NDArray[np.uint8], share: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the places of the words drawn from one sequence, in order, about `share` of its tokens and at least one.

    Words come in random order until the share is full; the last one counts where at least half of it fits.
    """
    begins = marks == BEGINS
    own = marks != SPECIAL
    # A word that a sequence begins in the middle of has no beginning here; its rest counts as a word.
    begins |= own & np.append(True, ~own[:-1])
    word = np.cumsum(begins) - 1
    if not own.any():
        return np.zeros(0, np.int64)
    sizes = np.bincount(word[own], minlength=int(begins.sum()))
    order = generator.permutation(len(sizes))
    ends = np.cumsum(sizes[order])
    taken = order[ends - sizes[order] / 2 <= share * own.sum()]
    if len(taken) == 0:
        taken = order[:1]
    drawn = np.zeros(len(sizes), bool)
    drawn[taken] = True
    return np.flatnonzero(own & drawn[word])
