"""From a recipe's `[data]` section to checked, split texts with a number each."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.examples import Example
from peftlab.data.labelled import stop_at
from peftlab.data.readers import LISTED, Role, Table, read_table
from peftlab.data.rows import Split, SplitName
from peftlab.data.sources import SPLITS, find_source
from peftlab.data.sources import Reading as Source
from peftlab.data.text_pairs import Reading, check_pairs, second
from peftlab.errors import DataError
from peftlab.recipe.records import Data
from peftlab.runs.files import write_json

VALUE = "value"
"""Column of the number, where `data.label` names no other."""


@dataclass(frozen=True)
class ValuedSplits:
    """The three splits of one run; the `labels` of a split are its numbers, fp64 [rows]. The rest as in `Splits`."""

    train: Split
    validation: Split
    test: Split
    source: Mapping[str, Any]
    fingerprint: str
    report: Mapping[str, Any]


def load_valued(data: Data, reading: Reading, span: tuple[float, float]) -> ValuedSplits:
    """Read, check and split texts (or pairs of texts) with a number each, which must lie within `span`.

    Numbers may stand there as strings. Raises DataError, naming rows, for one that is absent, no number or outside, for
    training rows that all have the same one, and for all findings of severity `stop` together.
    """
    from peftlab.data.reviews.generate import review_source

    source = find_source(
        data, recipe_path=reading.recipe_path, reading=Source(_wanted(data), read_table, review_source)
    )
    values = {split: _values(table, span) for split, table in source.tables.items()}
    found = check_pairs(source, data, reading, _row_lengths(reading))
    made = {split: _split(split, found.rows[split], values.get(split, values["train"])) for split in SPLITS}
    digest = _fingerprint(made)
    report = found.report | {"fingerprint": digest, "values": {name: _spread(one) for name, one in made.items()}}
    if reading.report_path is not None:
        write_json(reading.report_path, report)
    stop_at(found.findings, reading.report_path)
    numbers = made["train"].labels
    if (numbers == numbers[0]).all():
        first = found.rows["train"][0].place
        raise DataError(
            f"data: all {len(numbers):,} training rows have the value {numbers[0]:g} (such as {first}), so that "
            "there is nothing to learn; correct data.label, or add rows"
        )
    return ValuedSplits(**made, source=source.description, fingerprint=digest, report=report)


def _wanted(data: Data) -> dict[Role, str]:
    columns: dict[Role, str] = {"text": data.text, "label": VALUE if data.label == "label" else data.label}
    columns |= {"pair": data.pair} if data.pair is not None else {}
    return columns | ({"id": data.id} if data.id is not None else {})


def _values(table: Table, span: tuple[float, float]) -> dict[str, float]:
    """Return the number of each row of `table` by its place."""
    values: dict[str, float] = {}
    bad = []
    for line, raw in zip(table.lines, table.columns["label"], strict=True):
        place = f"{table.name}:{line}"
        number = _number(raw)
        if number is None:
            bad.append(f"{place}: the value is {'absent' if raw is None else repr(raw)}; expected a number")
        elif not span[0] <= number <= span[1]:
            bad.append(f"{place}: the value {number:g} lies outside task.span = {list(span)}")
        else:
            values[place] = number
    if bad:
        advice = "correct the rows, data.label or task.span"
        if len(bad) == 1:
            raise DataError(f"data: {bad[0]}; {advice}")
        listed = "".join(f"\n  {line}" for line in bad[:LISTED])
        which = f"the first {LISTED} are" if len(bad) > LISTED else "they are"
        raise DataError(f"data: {len(bad):,} rows have no usable value; {advice}; {which}:{listed}")
    return values


def _number(raw: object) -> float | None:
    """Return a finite number, also one written as a string; None for anything else."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _row_lengths(reading: Reading) -> Callable[[Sequence[Example]], NDArray[np.int64]] | None:
    count = reading.token_lengths
    if count is None:
        return None

    def lengths(rows: Sequence[Example]) -> NDArray[np.int64]:
        pairs = [second(row) for row in rows] if any(row.pair is not None for row in rows) else None
        return np.asarray(count([row.text for row in rows], pairs), np.int64)

    return lengths


def _split(name: SplitName, rows: Sequence[Example], values: Mapping[str, float]) -> Split:
    pairs = [second(row) for row in rows] if any(row.pair is not None for row in rows) else None
    numbers = np.asarray([values[row.place] for row in rows], np.float64)
    return Split(name, [row.id for row in rows], [row.text for row in rows], pairs, numbers)


def _spread(split: Split) -> dict[str, float] | None:
    if not len(split):
        return None
    numbers = split.labels
    return {
        "min": float(numbers.min()),
        "mean": float(numbers.mean()),
        "deviation": float(numbers.std()),
        "max": float(numbers.max()),
    }


def _fingerprint(splits: Mapping[SplitName, Split]) -> str:
    digest = hashlib.sha256()
    for split in splits.values():
        pairs = split.pairs if split.pairs is not None else [None] * len(split)
        for row in zip(split.ids, split.texts, pairs, split.labels.tolist(), strict=True):
            line = json.dumps([split.name, *row], ensure_ascii=False)
            digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
