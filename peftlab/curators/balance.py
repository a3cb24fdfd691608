"""Even out how much each class counts: repeat rows of small classes, leave out rows of large ones, or weigh rows.

Weights are rows / (classes * rows of the class), raised to `strength`: the usual balanced weights at 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from peftlab.curation.folds import single_label
from peftlab.curation.rows import Bench, Change, Curated, Rows
from peftlab.recipe.records import Record

PACKAGES = ()
SINGLE_LABEL = True


class Config(Record):
    """Settings of balancing."""

    how: Literal["oversample", "undersample", "weight"] = "oversample"
    """`oversample`: repeat rows of the smaller classes; `undersample`: drop rows of the larger ones; `weight`: let
    rows of smaller classes count more."""
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    """How far: at 1 all classes end alike; at 0.5 a class with a quarter of the rows of another ends with half."""


def checks(config: Config, has_encoder: bool) -> Iterator[tuple[str, str, str | None]]:  # noqa: ARG001 the contract
    """Yield settings that do not go together: none."""
    yield from ()


def curate(rows: Rows, config: Config, bench: Bench) -> Curated:
    """Return the rows to repeat, drop or weigh."""
    labels = single_label(rows)
    counts = np.bincount(labels, minlength=len(bench.label_names))
    changes = (
        _weights(rows, labels, counts, config) if config.how == "weight" else _samples(rows, counts, config, bench)
    )
    before = dict(zip(bench.label_names, counts.tolist(), strict=True))
    return Curated(changes, {"rows_before": before})


def _weights(rows: Rows, labels: NDArray[np.int64], counts: NDArray[np.int64], config: Config) -> list[Change]:
    present = counts > 0
    raw = np.zeros(len(counts))
    raw[present] = (len(labels) / (present.sum() * counts[present])) ** config.strength
    # Powers below 1 change the mean; the learning rate is meant for a mean of 1.
    raw *= len(labels) / (raw * counts).sum()
    old = rows.split.row_weights()
    return [
        Change("weight", int(number), "balanced by class", weight=float(old[place] * raw[labels[place]]))
        for place, number in enumerate(rows.numbers)
    ]


def _samples(rows: Rows, counts: NDArray[np.int64], config: Config, bench: Bench) -> list[Change]:
    """Repeat rows up to, or drop rows down to, the number that `strength` asks for; each class draws of its own."""
    present = counts[counts > 0]
    goal = present.max() if config.how == "oversample" else present.min()
    random = bench.random()
    changes: list[Change] = []
    for index, count in enumerate(counts.tolist()):
        if not count:
            continue
        own = np.flatnonzero(single_label(rows) == index)
        wanted = round(count * (goal / count) ** config.strength)
        if config.how == "undersample":
            gone = np.sort(random.permutation(own)[: count - wanted])
            changes += [Change("drop", int(rows.numbers[place]), "balanced by class") for place in gone]
            continue
        # Whole passes over the class first, so that no row is repeated twice before every row is repeated once.
        passes = [random.permutation(own) for _ in range(-(-(wanted - count) // count))]
        again = np.concatenate(passes)[: wanted - count] if passes else own[:0]
        names = (bench.label_names[index],)
        changes += [
            Change("add", int(rows.numbers[place]), "balanced by class", labels=names, text=rows.split.texts[place])
            for place in again.tolist()
        ]
    return changes
