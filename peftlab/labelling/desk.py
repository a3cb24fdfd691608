"""What a round of labelling works on: pool, training and validation rows as embeddings, and probes on what is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peftlab.data.examples import text_key
from peftlab.data.readers import Role, read_table
from peftlab.errors import DataError, UserError
from peftlab.evaluation.paired import paired_bootstrap
from peftlab.labelling.cache import kept_on_disk
from peftlab.labelling.curve import Curve, measure_curve
from peftlab.labelling.simulate import Embedded, probabilities_of
from peftlab.labelling.strategies import Pool
from peftlab.training.curate import bench_of

if TYPE_CHECKING:
    import torch

    from peftlab.evaluation.intervals import Interval
    from peftlab.training.prepare import Found

STRENGTHS = (0.01, 0.03, 0.1, 0.3)
"""Inverse penalties that are tried on validation."""


@dataclass(frozen=True)
class PoolRows:
    """The usable rows of the pool's file: line, text and pair of each. `sha256`: of the file."""

    lines: Sequence[int]
    texts: Sequence[str]
    pairs: Sequence[str] | None
    sha256: str

    def whole(self, place: int) -> str:
        """Return the text at `place` with its pair behind it."""
        return self.texts[place] + (self.pairs[place] if self.pairs is not None else "")


@dataclass(frozen=True)
class Desk:
    """Everything embedded, once. `classes`: number of labels."""

    rows: PoolRows
    pool: NDArray[np.float32]
    train: Embedded
    validation: Embedded
    classes: int
    seed: int

    def known(self, labels: Mapping[int, int]) -> Embedded:
        """Return training rows and the rows of the pool that are labelled, by place, as one."""
        places = sorted(labels)
        features = np.concatenate([self.train.features, self.pool[places]])
        return Embedded(features, np.concatenate([self.train.labels, np.asarray([labels[one] for one in places], int)]))

    def strength(self, known: Embedded) -> float:
        """Return the inverse penalty that validates best, the strongest penalty of equally good ones."""
        return max(STRENGTHS, key=lambda c: (float(self.right(known, c).mean()), -c))

    def right(self, known: Embedded, c: float) -> NDArray[np.bool_]:
        """Return whether a probe on `known` is right on each validation row."""
        given = probabilities_of(known, self.validation.features, self.classes, c=c)
        return np.asarray(given.argmax(1) == self.validation.labels)

    def open_pool(self, known: Embedded, open_places: NDArray[np.int64], c: float) -> Pool:
        """Return the rows of the pool that may be chosen, with what a probe on `known` thinks of them."""
        features = self.pool[open_places]
        return Pool(features, probabilities_of(known, features, self.classes, c=c))

    def curve(self, known: Embedded, c: float) -> Curve:
        """Return the learning curve up to the labels that are known, on validation."""

        def fit(places: NDArray[np.int64]) -> NDArray[np.bool_]:
            return self.right(Embedded(known.features[places], known.labels[places]), c)

        return measure_curve(len(known.labels), fit, seed=self.seed)


def refuse_other_rows(found: Found) -> None:
    """Raise UserError where the recipe's rows are no texts with one label each, or it has no encoder."""
    if "curate" not in found.task.FEATURES or found.splits.multi_label:
        raise UserError(f"{found.recipe.path}: peftlab label needs rows of text and one label each")
    if found.recipe.data.entities is not None:
        raise UserError(f"{found.recipe.path}: peftlab label marks no entities in a pool; remove data.entities")
    if found.recipe.encoder is None:
        raise UserError(f"{found.recipe.path}: labelling chooses by frozen embeddings; add [encoder] with name")


def set_desk(found: Found, rows: PoolRows, folder: Path, device: torch.device) -> Desk:
    """Embed the pool, training and validation rows with the recipe's encoder, or take them from `folder`."""
    bench = bench_of(found, device)
    if bench.embed is None or found.recipe.encoder is None:
        raise AssertionError("the recipe is checked to have an encoder")
    sha256 = found.files.sha256 if found.files is not None else None
    embed = kept_on_disk(bench.embed, folder, [sha256, found.recipe.encoder.model_dump(mode="json")])
    splits = found.splits
    train, validation = (Embedded(embed(one.texts, one.pairs), one.labels) for one in (splits.train, splits.validation))
    pool = embed(rows.texts, rows.pairs)
    return Desk(rows, pool, train, validation, len(splits.label_names), found.recipe.train.seed)


def read_pool(path: Path, found: Found, say: Callable[[str], None]) -> PoolRows:
    """Read the pool; rows that are empty, repeat another, or stand in a split of the recipe are left out, and counted.

    Raises DataError where the file cannot be read or nothing is left.
    """
    data = found.recipe.data
    wanted: dict[Role, str] = {"text": data.text, **({"pair": data.pair} if data.pair is not None else {})}
    table = read_table(path, wanted)
    seen: dict[str, str] = {}
    for split in (found.splits.train, found.splits.validation, found.splits.test):
        seen |= {text_key(text, second): split.name for text, second in _both(split.texts, split.pairs)}
    kept: list[tuple[int, str, str | None]] = []
    left_out: dict[str, int] = {}
    seconds = table.columns.get("pair", [None] * len(table))
    for line, text, other in zip(table.lines, table.columns["text"], seconds, strict=True):
        if not isinstance(text, str) or not text.strip() or (data.pair is not None and not isinstance(other, str)):
            why = "without a text"
        else:
            second = other if isinstance(other, str) else None
            key = text_key(text, second)
            home = seen.get(key)
            why = "" if home is None else "that repeat another" if home == "pool" else f"that also stand in {home}"
            if not why:
                seen[key] = "pool"
                kept.append((line, text, second))
        if why:
            left_out[why] = left_out.get(why, 0) + 1
    for why, count in left_out.items():
        say(f"pool: {count:,} rows {why} are left out")
    if not kept:
        raise DataError(f"{path}: no row is left to label")
    both = [pair or "" for _, _, pair in kept] if data.pair is not None else None
    return PoolRows([line for line, _, _ in kept], [text for _, text, _ in kept], both, table.sha256)


def _both(texts: Sequence[str], pairs: Sequence[str] | None) -> Iterator[tuple[str, str | None]]:
    """Yield each text with its pair, None where there are no pairs."""
    yield from zip(texts, [None] * len(texts) if pairs is None else pairs, strict=True)


def difference(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Interval:
    """Return the accuracy of `after` minus that of `before` on the same rows, with its interval."""
    return paired_bootstrap(after.astype(np.float64), before.astype(np.float64))
