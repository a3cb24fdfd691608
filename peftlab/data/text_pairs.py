"""Rows of two texts, read, checked and split: queries with answers, sources with targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.checks import Finding, find_problems
from peftlab.data.examples import Example, Parsed, parse_table, text_key
from peftlab.data.labelled import complete
from peftlab.data.readers import Role, Table
from peftlab.data.report import data_report
from peftlab.data.rows import SplitName
from peftlab.data.sources import Source
from peftlab.data.splits import draw
from peftlab.data.tokens import full_lengths
from peftlab.recipe.records import Data, Recipe

TokenLengths = Callable[[Sequence[str], Sequence[str] | None], Sequence[int]]
_LABEL = "pair"  # rows of pairs have no label; they all get this one


@dataclass(frozen=True)
class Reading:
    """How the rows of a run are read. `seed` is `train.seed`; the rest as in `load_labelled`."""

    recipe_path: Path
    seed: int
    max_length: int | None
    report_path: Path | None = None
    token_lengths: TokenLengths | None = None


def reading_of(recipe: Recipe, tokenizer: Any, report_path: Path | None) -> Reading:
    """Return how the rows of `recipe` are read; tokens are counted where a `tokenizer` is given."""
    return Reading(
        recipe_path=recipe.path,
        seed=recipe.train.seed,
        max_length=recipe.encoder.max_length if recipe.encoder is not None else None,
        report_path=report_path,
        token_lengths=partial(full_lengths, tokenizer) if tokenizer is not None else None,
    )


@dataclass(frozen=True)
class CheckedPairs:
    """The rows of the three splits that a run uses, what the checks found, and the report, without a fingerprint."""

    rows: Mapping[SplitName, Sequence[Example]]
    findings: Sequence[Finding]
    report: dict[str, Any]


def check_pairs(
    source: Source,
    data: Data,
    reading: Reading,
    row_lengths: Callable[[Sequence[Example]], NDArray[np.int64]] | None,
) -> CheckedPairs:
    """Check and split the rows of two texts in `source`; nothing is refused yet.

    Rows of one first text stay in one split where the splits are made here. `row_lengths` gives the tokens of each row
    that are held against `reading.max_length`.
    """
    parsed = {split: _parse(table) for split, table in source.tables.items()}
    rows, record = complete(data, parsed, seed=reading.seed, multi_label=True)
    rows = {split: [replace(row, key=text_key(row.text, row.pair)) for row in part] for split, part in rows.items()}
    record["stratified_by"] = "nothing"
    lengths = {split: row_lengths(part) for split, part in rows.items()} if row_lengths is not None else None
    unusable = {split: part.unusable for split, part in parsed.items()}
    findings = [
        found
        for found in find_problems(
            rows, unusable, data.checks, multi_label=True, lengths=lengths, max_length=reading.max_length
        )
        if found.check != "one_class"  # pairs have no classes
    ]
    used = rows
    if data.train_rows is not None:
        chosen = draw(rows["train"], data.train_rows, seed=reading.seed)
        used = rows | {"train": [rows["train"][index] for index in chosen]}
        lengths = lengths | {"train": lengths["train"][chosen]} if lengths is not None else None
    report = data_report(
        source=source,
        parsed=parsed,
        rows=used,
        train_of=len(rows["train"]),
        findings=findings,
        label_names=(),
        multi_label=False,
        split_record=record,
        lengths=lengths,
        max_length=reading.max_length,
        fingerprint="",
    )
    return CheckedPairs(used, findings, report)


def second(row: Example) -> str:
    """Return the second text of a row."""
    return row.pair or ""


def _parse(table: Table) -> Parsed:
    """Return the rows of `table` under one label, with the first text alone as the key: splits keep it together."""
    columns: dict[Role, Sequence[object]] = {**table.columns, "label": [_LABEL] * len(table)}
    parsed = parse_table(replace(table, columns=columns), multi_label=False, separator="|")
    return replace(parsed, examples=[replace(row, key=text_key(row.text)) for row in parsed.examples])
