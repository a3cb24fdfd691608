"""From parsed tables to the rows that a run uses: split, checked, drawn and reported; nothing is refused yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.data.checks import Finding, find_problems
from peftlab.data.examples import Parsed, text_key
from peftlab.data.report import data_report
from peftlab.data.rows import SplitName
from peftlab.data.sources import SPLITS, Source
from peftlab.data.splits import draw, split_off
from peftlab.data.surveyed import Rows, survey
from peftlab.errors import DataError
from peftlab.recipe.records import Data

RowLengths = Callable[[Rows], NDArray[Any]]
"""Gives the tokens of each row, [rows], special tokens included, before any cut."""
Labels = Literal["one", "many", "none"]
"""Labels of a row; `none`: rows are pairs of texts under one name, and rows of one first text stay in one split."""


@dataclass(frozen=True)
class CheckedRows:
    """The rows of the three splits that a run uses, what the checks found, and the report, without a fingerprint.

    `label_names`: sorted, of all rows, also of those that were not drawn.
    """

    rows: Mapping[SplitName, Rows]
    label_names: tuple[str, ...]
    findings: Sequence[Finding]
    report: dict[str, Any]


def checked_rows(
    source: Source,
    parsed: Mapping[SplitName, Parsed],
    data: Data,
    *,
    seed: int,
    labels: Labels,
    row_lengths: RowLengths | None = None,
    max_length: int | None = None,
) -> CheckedRows:
    """Complete the splits of `parsed`, check all rows, and draw `data.train_rows` of the training rows by `seed`.

    `row_lengths` are held against `max_length`. Raises DataError where `data.split` cannot be used.
    """
    rows, record = _complete(data, parsed, seed=seed, multi_label=labels != "one")
    if labels == "none":
        rows = {
            split: survey([replace(row, key=text_key(row.text, row.pair)) for row in part])
            for split, part in rows.items()
        }
        record["stratified_by"] = "nothing"
    lengths = {split: row_lengths(part) for split, part in rows.items()} if row_lengths is not None else None
    unusable = {split: part.unusable for split, part in parsed.items()}
    findings: Sequence[Finding] = find_problems(
        rows, unusable, data.checks, multi_label=labels != "one", lengths=lengths, max_length=max_length
    )
    names: tuple[str, ...] = ()
    if labels == "none":
        findings = [found for found in findings if found.check != "one_class"]
    else:
        names = tuple(sorted({label for part in rows.values() for label in part.label_counts()}))
    used = rows
    if data.train_rows is not None:
        drawn = np.asarray(draw(rows["train"], data.train_rows, seed=seed), np.int64)
        used = rows | {"train": rows["train"].take(drawn)}
        lengths = lengths | {"train": lengths["train"][drawn]} if lengths is not None else None
    report = data_report(
        source=source,
        parsed=parsed,
        rows=used,
        train_of=len(rows["train"]),
        findings=findings,
        label_names=names,
        multi_label=labels == "many",
        split_record=record,
        lengths=lengths,
        max_length=max_length,
    )
    return CheckedRows(used, names, findings, report)


def _complete(
    data: Data, parsed: Mapping[SplitName, Parsed], *, seed: int, multi_label: bool
) -> tuple[dict[SplitName, Rows], dict[str, Any]]:
    """Return the rows of all three splits and how they came about; splits that are not given come off train."""
    rows: dict[SplitName, Rows] = {split: survey(part.examples) for split, part in parsed.items()}
    missing = [split for split in SPLITS if split not in rows]
    record: dict[str, Any] = {"given": list(parsed), "made": missing}
    if missing:
        shares = dict(zip(SPLITS, data.split, strict=True))
        if abs(sum(data.split) - 1.0) > 1e-6 or not all(shares[split] > 0 for split in ("train", *missing)):
            lacking = " and ".join(missing)
            raise DataError(
                f"data.split: {list(data.split)} cannot be used; expected shares of train, validation and test that "
                f"add up to 1, those of train and {lacking} above 0, as {lacking} must be split off train"
            )
        split_seed = seed if data.split_seed is None else data.split_seed
        parts = split_off(rows["train"], missing, shares=shares, seed=split_seed, multi_label=multi_label)
        rows.update(parts.rows)
        record |= {
            "seed": split_seed,
            "shares": list(data.split),
            "stratified_by": "set of labels" if multi_label else "label",
            "kept_in_train": dict(parts.kept_in_train),
        }
    return {split: rows[split] for split in SPLITS}, record
