"""From a recipe's `[data]` section to checked, split, labelled rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.checks import Finding, find_problems
from peftlab.data.examples import Example, Parsed, parse_table
from peftlab.data.report import data_report
from peftlab.data.rows import Split, SplitName, Splits
from peftlab.data.sources import SPLITS, find_source
from peftlab.data.splits import draw, split_off
from peftlab.errors import DataError
from peftlab.recipe.records import Data
from peftlab.runs.files import write_json

TokenLengths = Callable[[Sequence[str], Sequence[str] | None], Sequence[int]]
Rows = Mapping[SplitName, Sequence[Example]]


def load_labelled(
    data: Data,
    *,
    recipe_path: Path,
    seed: int,
    multi_label: bool,
    max_length: int | None,
    report_path: Path | None = None,
    token_lengths: TokenLengths | None = None,
) -> Splits:
    """Read, check, split and label the rows that `data` asks for.

    Relative files are looked for beside `recipe_path`, then in the current directory. Splits that are not given are
    split off train by `data.split_seed`, else `seed`; `data.train_rows` are drawn by `seed`. Checks see all rows, also
    where only some of them are trained on. Class indices follow the sorted label names of the whole train split, with
    labels that only other splits have among them where `data.checks.unseen_label` lets such rows pass.

    `token_lengths` gives the tokens of each text (and pair), special tokens included, before any cut; with
    `max_length` the report then has the share that is cut. The report is written to `report_path` also where findings
    stop the run. Raises DataError for data that cannot be read, and one for all findings of severity `stop` together.
    """
    source = find_source(data, recipe_path=recipe_path)
    if data.entities is not None:
        from peftlab.data.entity_markers import mark_tables

        source = mark_tables(source)
    parsed = {
        split: parse_table(table, multi_label=multi_label, separator=data.label_separator)
        for split, table in source.tables.items()
    }
    rows, split_record = complete(data, parsed, seed=seed, multi_label=multi_label)
    lengths = _token_lengths(rows, token_lengths)
    unusable = {split: part.unusable for split, part in parsed.items()}
    findings = find_problems(
        rows, unusable, data.checks, multi_label=multi_label, lengths=lengths, max_length=max_length
    )
    names = tuple(sorted({label for examples in rows.values() for row in examples for label in row.labels}))
    used, used_lengths = rows, lengths
    if data.train_rows is not None:
        drawn = draw(rows["train"], data.train_rows, seed=seed)
        used = rows | {"train": [rows["train"][index] for index in drawn]}
        used_lengths = lengths | {"train": lengths["train"][drawn]} if lengths is not None else None
    fingerprint = _fingerprint(used)
    report = data_report(
        source=source,
        parsed=parsed,
        rows=used,
        train_of=len(rows["train"]),
        findings=findings,
        label_names=names,
        multi_label=multi_label,
        split_record=split_record,
        lengths=used_lengths,
        max_length=max_length,
        fingerprint=fingerprint,
    )
    if report_path is not None:
        write_json(report_path, report)
    stop_at(findings, report_path)
    train, validation, test = (_encode(split, used[split], names, multi_label=multi_label) for split in SPLITS)
    return Splits(train, validation, test, names, multi_label, source.description, fingerprint, report)


def complete(
    data: Data, parsed: Mapping[SplitName, Parsed], *, seed: int, multi_label: bool
) -> tuple[dict[SplitName, Sequence[Example]], dict[str, Any]]:
    """Return the rows of all three splits and how they came about; splits that are not given come off train."""
    rows: dict[SplitName, Sequence[Example]] = {split: part.examples for split, part in parsed.items()}
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


def _token_lengths(rows: Rows, token_lengths: TokenLengths | None) -> dict[SplitName, NDArray[np.int64]] | None:
    if token_lengths is None:
        return None
    return {
        split: np.asarray(token_lengths([row.text for row in examples], _pairs(examples)), np.int64)
        for split, examples in rows.items()
    }


def _pairs(rows: Sequence[Example]) -> list[str] | None:
    pairs = [row.pair for row in rows if row.pair is not None]
    return pairs or None


def _encode(name: SplitName, rows: Sequence[Example], names: Sequence[str], *, multi_label: bool) -> Split:
    index = {label: place for place, label in enumerate(names)}
    labels: NDArray[Any]
    if multi_label:
        labels = np.zeros((len(rows), len(names)), np.float32)
        for place, row in enumerate(rows):
            labels[place, [index[label] for label in row.labels]] = 1.0
    else:
        labels = np.asarray([index[row.labels[0]] for row in rows], np.int64)
    return Split(name, [row.id for row in rows], [row.text for row in rows], _pairs(rows), labels)


def _fingerprint(rows: Rows) -> str:
    digest = hashlib.sha256()
    for split, examples in rows.items():
        for row in examples:
            line = json.dumps([split, row.id, row.text, row.pair, row.labels], ensure_ascii=False)
            digest.update(line.encode("utf-8") + b"\n")
    return digest.hexdigest()


def stop_at(findings: Sequence[Finding], report_path: Path | None) -> None:
    """Raise one DataError for all findings whose severity is `stop`, if there are any."""
    stopping = [finding.line(10) for finding in findings if finding.severity == "stop"]
    if not stopping:
        return
    ending = f"; see {report_path}" if report_path is not None else ""
    if len(stopping) == 1:
        raise DataError(f"data: {stopping[0]}{ending}")
    listed = "".join(f"\n  {line}" for line in stopping)
    raise DataError(f"data: {len(stopping)} findings stop the run{ending}:{listed}")
