"""One row of a table as checks and splits see it: a text, its labels by name, and its place."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from peftlab.data.readers import Table

# Anything but white space, control characters, zero-width characters and the byte order mark.
_VISIBLE = re.compile("[^\\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]")


@dataclass(frozen=True, slots=True)
class Example:
    """A usable row. `labels`: its label, or, in a multi-label set, its labels, sorted. `key`: see `text_key`."""

    place: str
    id: str
    text: str
    pair: str | None
    labels: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """A reason why a row cannot be used; a row with neither text nor label has two."""

    place: str
    check: Literal["empty_text", "missing_label"]
    reason: str


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
    examples: list[Example] = []
    unusable: list[Unusable] = []
    converted: Counter[str] = Counter()
    ids = _ids(table)
    pairs = table.columns.get("pair")
    for row, (text, value) in enumerate(zip(table.columns["text"], table.columns["label"], strict=True)):
        place = f"{table.name}:{table.lines[row]}"
        pair = pairs[row] if pairs is not None else None
        problems = [Unusable(place, "empty_text", why) for why in _text_problems(text, pair, pairs is not None)]
        labels: tuple[str, ...] = ()
        try:
            labels = _labels(value, separator, converted) if multi_label else (_label(value, converted),)
        except ValueError as error:
            problems.append(Unusable(place, "missing_label", str(error)))
        if not problems and isinstance(text, str) and (pair is None or isinstance(pair, str)):
            examples.append(Example(place, ids[row] or place, text, pair, labels, text_key(text, pair)))
        unusable.extend(problems)
    return Parsed(examples, unusable, tuple(_notes(table, converted, ids)), _repeats(ids))


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


def _ids(table: Table) -> list[str | None]:
    values = table.columns.get("id")
    if values is None:
        return [None] * len(table)
    return [str(value) if isinstance(value, str | int) and str(value).strip() else None for value in values]


def _repeats(ids: Sequence[str | None]) -> int:
    given = [name for name in ids if name is not None]
    return len(given) - len(set(given))


def _notes(table: Table, converted: Counter[str], ids: Sequence[str | None]) -> list[str]:
    notes = [f"{table.name}: labels read from {what}: {count:,}" for what, count in converted.items() if count]
    without = ids.count(None)
    if "id" in table.columns and without:
        notes.append(f"{table.name}: rows without an id, named by their line: {without:,}")
    return notes
