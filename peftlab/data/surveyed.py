"""What one pass over rows finds, in numbers: all that checks, splits and the report ask of a million of them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.examples import Example, Labels, TableRows, short_hash
from peftlab.data.kept import Chosen, Lazy
from peftlab.data.mojibake import is_broken

LONG_TEXT = 100_000  # characters
_AT_ONCE = 1 << 16  # rows whose keys are looked up together


@dataclass(frozen=True)
class Facts:
    """Of each row: `keys`, 64 bits of what equal texts share; `sets`, its labels' place in `label_sets`; `characters`.

    `broken` and `long`: the rows whose text, or pair, holds what is no text, or more than LONG_TEXT characters.
    """

    keys: NDArray[np.uint64]
    sets: NDArray[np.int32]
    label_sets: Sequence[Labels]
    characters: NDArray[np.uint32]
    broken: NDArray[np.uint32]
    long: NDArray[np.uint32]


class Rows(Lazy[Example]):
    """Rows of `base` at `places` [rows], with what is known of them."""

    def __init__(self, base: Sequence[Example], facts: Facts, places: NDArray[np.uint32]) -> None:
        self.base, self.facts, self.places = base, facts, places

    def __len__(self) -> int:
        return len(self.places)

    def stretch(self, start: int, end: int) -> list[Example]:
        """Return rows that stand together."""
        return Chosen[Example](self.base, self.places).stretch(start, end)

    def take(self, rows: NDArray[Any]) -> Rows:
        """Return the rows at `rows` of these."""
        return Rows(self.base, self.facts, self.places[rows])

    @property
    def keys(self) -> NDArray[np.uint64]:
        """What rows of equal texts share, [rows]."""
        return self.facts.keys[self.places]

    @property
    def sets(self) -> NDArray[np.int32]:
        """The place of each row's labels in `facts.label_sets`, [rows]."""
        return self.facts.sets[self.places]

    @property
    def characters(self) -> NDArray[np.uint32]:
        """Characters of text and pair, [rows]."""
        return self.facts.characters[self.places]

    def among(self, places: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return, ascending, which of these rows stand at one of `places` of the base."""
        return np.flatnonzero(np.isin(self.places, places)) if len(places) else np.zeros(0, np.int64)

    def with_keys(self, keys: NDArray[np.uint64]) -> list[int]:
        """Return, ascending, which of these rows have one of `keys`, which are ascending themselves."""
        found: list[int] = []
        for start in range(0, len(self) if len(keys) else 0, _AT_ONCE):
            own = self.facts.keys[self.places[start : start + _AT_ONCE]]
            nearest = keys[np.minimum(np.searchsorted(keys, own), len(keys) - 1)]
            found += (np.flatnonzero(nearest == own) + start).tolist()
        return found

    def set_counts(self) -> dict[Labels, int]:
        """Return the rows of each set of labels that a row has, in the order of their first rows in the base."""
        counts = np.bincount(self.sets, minlength=len(self.facts.label_sets))
        return {labels: int(n) for labels, n in zip(self.facts.label_sets, counts, strict=True) if n}

    def label_counts(self) -> Counter[str]:
        """Return the rows of each label."""
        counts: Counter[str] = Counter()
        for labels, number in self.set_counts().items():
            counts.update(dict.fromkeys(labels, number))
        return counts

    @property
    def ids(self) -> Sequence[str]:
        """What the rows are called."""
        return Chosen(self.base, self.places, made=_id_of)

    @property
    def texts(self) -> Sequence[str]:
        """The texts of the rows."""
        if isinstance(self.base, TableRows):
            return Chosen(self.base.texts, self.places)
        return [row.text for row in self]

    @property
    def pairs(self) -> Sequence[str] | None:
        """Their second texts; None where they have none."""
        if isinstance(self.base, TableRows):
            return Chosen(self.base.pairs, self.places) if self.base.pairs is not None and len(self) else None
        return [row.pair for row in self if row.pair is not None] or None


def survey(rows: Sequence[Example]) -> Rows:
    """Pass over `rows` once; what was surveyed before is returned as it is."""
    if isinstance(rows, Rows):
        return rows
    keys, characters = array("Q"), array("I")
    broken, long = array("I"), array("I")
    for place, row in enumerate(rows):
        keys.append(short_hash(row.key))
        characters.append(len(row.text) + len(row.pair or ""))
        if is_broken(row.text) or (row.pair is not None and is_broken(row.pair)):
            broken.append(place)
        if max(len(row.text), len(row.pair or "")) > LONG_TEXT:
            long.append(place)
    sets, label_sets = (rows.sets, rows.label_sets) if isinstance(rows, TableRows) else _label_sets(rows)
    facts = Facts(
        keys=np.asarray(keys),
        sets=sets,
        label_sets=label_sets,
        characters=np.asarray(characters),
        broken=np.asarray(broken),
        long=np.asarray(long),
    )
    return Rows(rows, facts, np.arange(len(rows), dtype=np.uint32))


def _label_sets(rows: Sequence[Example]) -> tuple[NDArray[np.int32], Sequence[Labels]]:
    """Return the place of each row's labels among the sets of labels that there are, and these."""
    places: dict[Labels, int] = {}
    sets = [places.setdefault(row.labels, len(places)) for row in rows]
    return np.asarray(sets, np.int32), list(places)


def _id_of(row: Example) -> str:
    return row.id


def repeated(parts: Iterable[Rows]) -> NDArray[np.uint64]:
    """Return, ascending, the keys that two or more rows of all `parts` have."""
    keys = np.concatenate([np.zeros(0, np.uint64), *(rows.keys for rows in parts)])
    keys.sort()
    return np.unique(keys[1:][keys[1:] == keys[:-1]])
