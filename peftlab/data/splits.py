"""Splits made here: stratified, reproducible, and with equal texts on one side."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.examples import Example, Labels
from peftlab.data.rows import SplitName
from peftlab.data.surveyed import Rows, survey


@dataclass(frozen=True)
class Parts:
    """Rows split off the training rows, each part in file order.

    `kept_in_train`: labels whose texts, with their number, all stayed in train, as there are too few of them.
    """

    rows: Mapping[SplitName, Rows]
    kept_in_train: Mapping[str, int]


def split_off(
    pool: Sequence[Example],
    missing: Sequence[SplitName],
    *,
    shares: Mapping[SplitName, float],
    seed: int,
    multi_label: bool,
) -> Parts:
    """Split the rows of a training file into train and the `missing` splits, stratified by label.

    Rule for shares: each part gets its own share divided by the sum of the shares of train and of what is missing. With
    6:2:2 and a test file given, validation takes 2 of 8 parts of the training rows.

    What is shared out are distinct texts (`text_key`): rows of the same text stay together, so that a split made here
    puts no text on both sides. Texts of a label (multi-label: of a set of labels) are ordered by a hash of seed and
    text, and a share of each is taken, the fraction left over being carried to the next label in alphabetical order:
    totals are right to a row and each label to one text. A label with fewer texts than there are parts stays in train.
    Neither the order of the rows nor Python's hash seed matters.
    """
    rows = survey(pool)
    label_sets = rows.facts.label_sets
    first, group = _groups(rows.keys)
    sets = rows.sets[first]
    counts = rows.take(first).label_counts()
    small = {label: count for label, count in counts.items() if count <= len(missing)}
    strata = [
        stratum
        for labels, stratum in _strata(sets, label_sets, _order(rows, first, seed)).items()
        if not any(label in small for label in labels)
    ]
    parts = np.zeros(len(first), np.int8)  # 0 is train, then those of `missing`
    left = sum(shares[name] for name in ("train", *missing))
    for number, name in enumerate(missing, start=1):
        taken = _take([len(stratum) for stratum in strata], shares[name] / left, keep=0 if multi_label else 1)
        for stratum, count in zip(strata, taken, strict=True):
            parts[stratum[:count]] = number
        strata = [stratum[count:] for stratum, count in zip(strata, taken, strict=True)]
        left -= shares[name]
    lost = set(counts) - {label for place in np.unique(sets[parts == 0]).tolist() for label in label_sets[place]}
    back = [place for place, labels in enumerate(label_sets) if lost.intersection(labels)]
    parts[np.isin(sets, back)] = 0
    of_rows = parts[group]
    made: tuple[SplitName, ...] = ("train", *missing)
    kept = {label: counts[label] for label in sorted({*small, *lost})}
    return Parts({name: rows.take(of_rows == number) for number, name in enumerate(made)}, kept)


def draw(rows: Sequence[Example], count: int, *, seed: int) -> list[int]:
    """Return the indices, ascending, of `count` of the rows, stratified by label (or set of labels).

    A single label that would get no row takes one from the label that has the most, where `count` allows a row each.
    """
    if count >= len(rows):
        return list(range(len(rows)))
    found = survey(rows)
    order = _order(found, np.arange(len(found)), seed, numbered=True)
    strata = list(_strata(found.sets, found.facts.label_sets, order).values())
    taken = _take([len(stratum) for stratum in strata], count / len(rows), keep=0)
    if count >= len(strata):
        for place, number in enumerate(taken):
            if not number:
                taken[taken.index(max(taken))] -= 1
                taken[place] = 1
    return sorted(row for stratum, number in zip(strata, taken, strict=True) for row in stratum[:number].tolist())


def _groups(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the first row of each key, and for each row which of these has its key."""
    order = np.argsort(keys, kind="stable").astype(np.uint32)
    ordered = keys[order]
    begins = np.ones(len(keys), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    del ordered
    group = np.empty(len(keys), np.uint32)
    group[order] = np.cumsum(begins, dtype=np.uint32) - np.uint32(1)
    return order[begins], group


def _order(rows: Rows, which: NDArray[Any], seed: int, *, numbered: bool = False) -> NDArray[np.uint64]:
    """Return a hash of seed and text of the rows `which`, by which they are ordered; where `numbered`, of the row too.

    It is the first 64 of 256 bits: enough to order them by.
    """
    names = (
        f"{seed}\x1e{row.key}\x1e{number}" if numbered else f"{seed}\x1e{row.key}"
        for number, row in enumerate(rows.take(which))
    )
    hashes = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") for name in names)
    return np.fromiter(hashes, np.uint64, count=len(which))


def _strata(
    sets: NDArray[np.int32], label_sets: Sequence[Labels], order: NDArray[np.uint64]
) -> dict[Labels, NDArray[np.int64]]:
    """Return what has each set of labels, by `order`; the sets in the order of the alphabet."""
    ordered = np.lexsort((order, sets))
    of_ordered = sets[ordered]
    starts = np.flatnonzero(of_ordered[1:] != of_ordered[:-1]) + 1
    parts = np.split(ordered, starts) if len(ordered) else []
    strata = {int(sets[part[0]]): part for part in parts}
    return {label_sets[place]: strata[place] for place in sorted(strata, key=lambda place: label_sets[place])}


def _take(sizes: Sequence[int], share: float, *, keep: int) -> list[int]:
    """Return how many to take of strata of these `sizes`: `share` of each, fractions carried on, `keep` left in it."""
    carry = 0.0
    taken = []
    for size in sizes:
        carry += share * size
        number = max(0, min(math.floor(carry + 0.5), size - keep))
        carry -= number
        taken.append(number)
    return taken
