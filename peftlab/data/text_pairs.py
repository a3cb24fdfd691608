"""Rows of two texts, read, checked and split: queries with answers, sources with targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from peftlab.data.checked import CheckedRows, RowLengths, checked_rows
from peftlab.data.examples import Example, Parsed, parse_table, text_key
from peftlab.data.readers import Role, Table
from peftlab.data.sources import Source
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


def check_pairs(source: Source, data: Data, reading: Reading, row_lengths: RowLengths | None) -> CheckedRows:
    """Check and split the rows of two texts in `source`; nothing is refused yet.

    `row_lengths` gives the tokens of each row that are held against `reading.max_length`.
    """
    parsed = {split: _parse(table) for split, table in source.tables.items()}
    return checked_rows(
        source,
        parsed,
        data,
        seed=reading.seed,
        labels="none",
        row_lengths=row_lengths,
        max_length=reading.max_length,
    )


def second(row: Example) -> str:
    """Return the second text of a row."""
    return row.pair or ""


def _parse(table: Table) -> Parsed:
    """Return the rows of `table` under one label, with the first text alone as the key: splits keep it together."""
    columns: dict[Role, Sequence[object]] = {**table.columns, "label": [_LABEL] * len(table)}
    parsed = parse_table(replace(table, columns=columns), multi_label=False, separator="|")
    return replace(parsed, examples=[replace(row, key=text_key(row.text)) for row in parsed.examples])
