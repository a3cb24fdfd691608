"""One row of a table as checks and splits see it: a text, its labels by name, and its place."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.data.kept import Chosen, Lazy
from peftlab.data.readers import Role, Table

Labels = tuple[str, ...]

# Anything but white space, control characters, zero-width characters and the byte order mark.
_VISIBLE = re.compile("[^\\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]")


@dataclass(frozen=True, slots=True)
class Example:
    """A usable row. `labels`: its label, or, in a multi-label set, its labels, sorted. `key`: see `text_key`."""

    place: str
    id: str
    text: str
    pair: str | None
    labels: Labels
    key: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """A reason why a row cannot be used; a row with neither text nor label has two."""

    place: str
    check: Literal["empty_text", "missing_label"]
    reason: str


class TableRows(Lazy[Example]):
    """The usable rows of a table, made of its columns when they are asked for.

    `usable` [rows]: where they stand in the table. `sets` [rows]: the place of a row's labels in `label_sets`.
    """

    def __init__(
        self, table: Table, usable: NDArray[np.uint32], sets: NDArray[np.int32], label_sets: Sequence[Labels]
    ) -> None:
        self._table, self._usable = table, usable
        self.sets, self.label_sets = sets, label_sets

    def __len__(self) -> int:
        return len(self._usable)

    def stretch(self, start: int, end: int) -> list[Example]:
        """Return rows that stand together."""
        roles: tuple[Role, ...] = ("text", "pair", "id")
        text, pair, name = (
            self.column(role)[start:end] if role in self._table.columns else [None] * (end - start) for role in roles
        )
        lines = [self._table.lines[row] for row in self._usable[start:end].tolist()]
        labels = [self.label_sets[place] for place in self.sets[start:end].tolist()]
        return [_example(self._table.name, *values) for values in zip(lines, text, pair, name, labels, strict=True)]

    def column(self, role: Role) -> Sequence[Any]:
        """Return the values of one column, those of unusable rows left out."""
        return Chosen(self._table.columns[role], self._usable)

    @property
    def texts(self) -> Sequence[str]:
        """The texts of the rows."""
        return self.column("text")

    @property
    def pairs(self) -> Sequence[str] | None:
        """Their second texts; None where the table has none."""
        return self.column("pair") if "pair" in self._table.columns and len(self) else None


def _example(table: str, line: int, text: str, pair: str | None, name: object, labels: Labels) -> Example:
    place = f"{table}:{line}"
    return Example(place, _id(name) or place, text, pair, labels, text_key(text, pair))


@dataclass(frozen=True)
class Parsed:
    """The rows of one table. `notes` say what was converted; `repeated_ids` counts ids that an earlier row has."""

    examples: Sequence[Example]
    unusable: Sequence[Unusable]
    notes: tuple[str, ...]
    repeated_ids: int


def parse_table(table: Table, *, multi_label: bool, separator: str) -> Parsed:
    """Turn the values of `table` into rows; those without a usable text or label are returned apart.

    Labels are strings without white space around them, integers, whole floats or booleans (`true`, `false`). In a
    multi-label set a row holds a list of these, or one string that is split at `separator`; no label is no mistake.
    """
    usable, sets = array("I"), array("i")
    label_sets: dict[Labels, int] = {}
    unusable: list[Unusable] = []
    converted: Counter[str] = Counter()
    columns = table.columns
    pairs = columns.get("pair", repeat(None, len(table)))
    for row, (text, value, pair) in enumerate(zip(columns["text"], columns["label"], pairs, strict=True)):
        place = f"{table.name}:{table.lines[row]}"
        problems = [Unusable(place, "empty_text", why) for why in _text_problems(text, pair, "pair" in columns)]
        labels: Labels = ()
        try:
            labels = _labels(value, separator, converted) if multi_label else (_label(value, converted),)
        except ValueError as error:
            problems.append(Unusable(place, "missing_label", str(error)))
        if not problems:
            usable.append(row)
            sets.append(label_sets.setdefault(labels, len(label_sets)))
        unusable.extend(problems)
    rows = TableRows(table, np.asarray(usable), np.asarray(sets), list(label_sets))
    without, repeated = _ids(table)
    return Parsed(rows, unusable, tuple(_notes(table, converted, without)), repeated)


def text_key(text: str, pair: str | None = None) -> str:
    """Return what texts that count as the same share: NFKC, case folded, without white space."""
    key = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return key if pair is None else f"{key}\x1f{text_key(pair)}"


def _text_problems(text: object, pair: object, with_pair: bool) -> list[str]:
    problems = []
    for name, value in (("text", text), ("pair", pair))[: 2 if with_pair else 1]:
        if value is None:
            problems.append(f"no {name}")
        elif not isinstance(value, str):
            problems.append(f"the {name} is of type {type(value).__name__}, not a string")
        elif not _VISIBLE.search(value):
            problems.append(f"the {name} is empty")
    return problems[:1]


def _label(value: object, converted: Counter[str]) -> str:
    """Return the label as a string; ValueError, whose text is the reason, for what is none."""
    if isinstance(value, bool):
        converted["booleans (now true and false)"] += 1
        return "true" if value else "false"
    if isinstance(value, int):
        converted["integers"] += 1
        return str(value)
    if isinstance(value, float) and value.is_integer():
        converted["whole floats"] += 1
        return str(int(value))
    if isinstance(value, str):
        label = value.strip()
        if label != value:
            converted["strings with white space around them, which was taken off"] += 1
        if _VISIBLE.search(label):
            return label
        raise ValueError("the label is empty")
    if value is None or (isinstance(value, float) and math.isnan(value)):  # what pandas writes for an absent number
        raise ValueError("no label")
    if isinstance(value, list | tuple):
        raise ValueError("the label is a list; set task.multi_label = true for such rows")  # noqa: TRY004
    kind = "a number with a fraction" if isinstance(value, float) else f"of type {type(value).__name__}"
    raise ValueError(f"the label is {kind}; expected a string, an integer or a boolean")


def _labels(value: object, separator: str, converted: Counter[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        items: Sequence[object] = [item for item in value.split(separator) if item.strip()]
        converted.update({f"lists in one string, split at {separator!r}": len(items) > 1})
        return tuple(sorted({str(item).strip() for item in items}))
    if isinstance(value, list | tuple):
        return tuple(sorted({_label(item, converted) for item in value}))
    return (_label(value, converted),)


def _id(value: object) -> str | None:
    """Return what a row is called by its id column; None where it is not."""
    return str(value) if isinstance(value, str | int) and str(value).strip() else None


def _ids(table: Table) -> tuple[int, int]:
    """Return the rows without an id, and those with the id of an earlier row."""
    names = (_id(value) for value in table.columns.get("id", ()))
    given = np.fromiter((short_hash(name) for name in names if name is not None), np.uint64)
    return len(table) - len(given), len(given) - len(np.unique(given))


def short_hash(text: str) -> int:
    """Return 64 bits that stand for `text`: of a million texts, two share them in one of 37 million sets."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _notes(table: Table, converted: Counter[str], without: int) -> list[str]:
    notes = [f"{table.name}: labels read from {what}: {count:,}" for what, count in converted.items() if count]
    if "id" in table.columns and without:
        notes.append(f"{table.name}: rows without an id, named by their line: {without:,}")
    return notes
