"""Splits made here: stratified, reproducible, and with equal texts on one side."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peftlab.data.examples import Example
from peftlab.data.rows import SplitName


@dataclass(frozen=True)
class Parts:
    """Rows split off the training rows, each part in file order.

    `kept_in_train`: labels whose texts, with their number, all stayed in train, as there are too few of them.
    """

    rows: Mapping[SplitName, Sequence[Example]]
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
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(pool):
        groups.setdefault(row.key, []).append(index)
    labels = {key: pool[indices[0]].labels for key, indices in groups.items()}
    counts = Counter(label for names in labels.values() for label in names)
    small = {label: count for label, count in counts.items() if count <= len(missing)}
    movable = [key for key in groups if not any(label in small for label in labels[key])]
    strata = _strata({key: labels[key] for key in movable}, seed)
    parts: dict[str, SplitName] = dict.fromkeys(groups, "train")
    left = sum(shares[name] for name in ("train", *missing))
    for name in missing:
        taken = {key for keys in _take(strata, shares[name] / left, keep=0 if multi_label else 1) for key in keys}
        parts.update(dict.fromkeys(taken, name))
        strata = [[key for key in keys if key not in taken] for keys in strata]
        left -= shares[name]
    lost = set(counts) - {label for key, name in parts.items() if name == "train" for label in labels[key]}
    for key in groups:
        if lost.intersection(labels[key]):
            parts[key] = "train"
    made: tuple[SplitName, ...] = ("train", *missing)
    rows: dict[SplitName, list[Example]] = {split: [] for split in made}
    for row in pool:
        rows[parts[row.key]].append(row)
    kept = {label: counts[label] for label in sorted({*small, *lost})}
    return Parts(rows, kept)


def draw(rows: Sequence[Example], count: int, *, seed: int) -> list[int]:
    """Return the indices, ascending, of `count` of the rows, stratified by label (or set of labels).

    A single label that would get no row takes one from the label that has the most, where `count` allows a row each.
    """
    if count >= len(rows):
        return list(range(len(rows)))
    named = {f"{row.key}\x1e{index}": row.labels for index, row in enumerate(rows)}
    strata = _strata(named, seed)
    taken = _take(strata, count / len(rows), keep=0)
    if count >= len(strata):
        for stratum, chosen in zip(strata, taken, strict=True):
            if not chosen:
                max(taken, key=len).pop()
                chosen.append(stratum[0])
    places = {name: index for index, name in enumerate(named)}
    return sorted(places[name] for chosen in taken for name in chosen)


def _strata(labels: Mapping[str, tuple[str, ...]], seed: int) -> list[list[str]]:
    """Return the names grouped by labels; groups by label, names by a hash of seed and name."""
    strata: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(labels, key=lambda name: hashlib.sha256(f"{seed}\x1e{name}".encode()).digest()):
        strata.setdefault(labels[name], []).append(name)
    return [strata[names] for names in sorted(strata)]


def _take(strata: Sequence[Sequence[str]], share: float, *, keep: int) -> list[list[str]]:
    """Take `share` of each stratum from its front, carrying fractions on, and leaving at least `keep` in each."""
    carry = 0.0
    taken = []
    for stratum in strata:
        carry += share * len(stratum)
        number = max(0, min(math.floor(carry + 0.5), len(stratum) - keep))
        carry -= number
        taken.append(list(stratum[:number]))
    return taken
