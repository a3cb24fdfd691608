"""Training rows as curators see them, and the changes by which they alter them.

A curator alters nothing itself: it returns changes. So what is written down about a curator is exactly what was done,
and the same rows come out when the written changes are applied again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.data.rows import Split

Action = Literal["drop", "relabel", "weight", "add"]

Embed = Callable[[Sequence[str], Sequence[str] | None], NDArray[np.float32]]
"""From texts, and perhaps pairs, to frozen pooled embeddings, fp32, [texts, hidden size]."""


@dataclass(frozen=True)
class Rows:
    """The training rows between two curators.

    `numbers` [rows]: the name of each row in changes. Rows of the training split have their place in it, counted from
    1; rows that a curator added have the numbers behind those, in the order in which they were added.
    """

    split: Split
    numbers: NDArray[np.int64]
    next_number: int

    def __len__(self) -> int:
        return len(self.split)

    @property
    def labels(self) -> NDArray[Any]:
        """Class indices, [rows]; for multi-label sets zeros and ones, [rows, classes]."""
        return self.split.labels

    def text(self, place: int) -> str:
        """Return the text at `place`, with its pair behind it where it has one."""
        pair = "" if self.split.pairs is None else f" | {self.split.pairs[place]}"
        return self.split.texts[place] + pair


@dataclass(frozen=True)
class Change:
    """One change of one row.

    `row`: the number of the row that is changed; for `add` of the row that the new one was made from. `labels`: the
    new label (multi-label: labels) by name, of `relabel` and `add`. `weight`: what the row counts from now on, of
    `weight`, and of `add` where it is not what its source counts. `text`, `pair`: those of the new row, of `add`; the
    pair is its source's where it is None. `score`: what the curator judged by.
    """

    action: Action
    row: int
    why: str
    labels: tuple[str, ...] | None = None
    weight: float | None = None
    text: str | None = None
    pair: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Curated:
    """What one curator wants done. `figures`: JSON values that it measured; `sentences`: what people must know.

    `review`: rows for a person to judge, where the curator has some, the most suspicious first.
    """

    changes: Sequence[Change]
    figures: Mapping[str, Any] = field(default_factory=dict)
    sentences: Sequence[str] = ()
    review: Sequence[ReviewRow] = ()


@dataclass(frozen=True)
class ReviewRow:
    """A row that a person should look at: what it is labelled, what it may be, and what is proposed.

    `suspicion`: from 0 to 1. `decision`: `keep`, `drop`, `relabel` or `weight`.
    """

    row: int
    id: str
    label: str
    suggested: str
    suspicion: float
    decision: str
    text: str


@dataclass(frozen=True)
class Bench:
    """What a curator may use beside the training rows and its settings.

    `seed`: of this curator in this recipe. `folder`: where files that a recipe names are looked for first.
    `embed`: the recipe's frozen encoder, or None where the recipe has none.
    """

    label_names: tuple[str, ...]
    multi_label: bool
    seed: int
    folder: Path
    embed: Embed | None

    def random(self) -> np.random.Generator:
        """Return the generator of this curator, from its start."""
        return np.random.default_rng(self.seed)

    def labels_of(self, rows: Rows, place: int) -> tuple[str, ...]:
        """Return the names of the labels of the row at `place`."""
        if self.multi_label:
            return tuple(self.label_names[index] for index in np.flatnonzero(rows.labels[place]))
        return (self.label_names[int(rows.labels[place])],)


def training_rows(split: Split) -> Rows:
    """Return the rows of the training split, numbered from 1, each with a weight."""
    count = len(split)
    return Rows(replace(split, weights=split.row_weights()), np.arange(1, count + 1), count + 1)


def apply_changes(rows: Rows, changes: Sequence[Change], label_names: Sequence[str]) -> Rows:
    """Return `rows` after `changes`: rows keep their order, new ones stand behind them. KeyError for an unknown row."""
    split = rows.split
    place_of = {int(number): place for place, number in enumerate(rows.numbers)}
    labels, weights = split.labels.copy(), split.row_weights().copy()
    kept = np.ones(len(rows), bool)
    added: list[Change] = []
    for change in changes:
        place = place_of[change.row]
        if change.action == "drop":
            kept[place] = False
        elif change.action == "relabel":
            labels[place] = _encoded(change.labels, label_names, labels)
        elif change.action == "weight":
            weights[place] = change.weight
        else:
            added.append(change)
    places = np.flatnonzero(kept).tolist()
    sources = [place_of[change.row] for change in added]
    new_labels = [_encoded(change.labels, label_names, labels) for change in added]
    pairs = None
    if split.pairs is not None:
        old = split.pairs
        pairs = [old[place] for place in places] + [
            change.pair if change.pair is not None else old[place] for change, place in zip(added, sources, strict=True)
        ]
    new_weights = [
        weights[place] if change.weight is None else change.weight for change, place in zip(added, sources, strict=True)
    ]
    numbers = np.arange(rows.next_number, rows.next_number + len(added))
    ids = [f"{split.ids[place]}+{number}" for place, number in zip(sources, numbers.tolist(), strict=True)]
    changed = Split(
        name=split.name,
        ids=[split.ids[place] for place in places] + ids,
        texts=[split.texts[place] for place in places] + [change.text or "" for change in added],
        pairs=pairs,
        labels=np.concatenate([labels[places], np.asarray(new_labels, labels.dtype)]) if added else labels[places],
        weights=np.concatenate([weights[places], np.asarray(new_weights, np.float32)]),
    )
    return Rows(changed, np.concatenate([rows.numbers[places], numbers]), rows.next_number + len(added))


def _encoded(names: tuple[str, ...] | None, label_names: Sequence[str], labels: NDArray[Any]) -> Any:
    if labels.ndim == 1:
        return label_names.index((names or ("",))[0])
    return np.isin(np.asarray(label_names), np.asarray(names or (), dtype=str)).astype(labels.dtype)
