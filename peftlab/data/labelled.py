"""From a recipe's `[data]` section to checked, split, labelled rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.checked import checked_rows
from peftlab.data.checks import Finding
from peftlab.data.examples import parse_table
from peftlab.data.rows import Split, SplitName, Splits
from peftlab.data.sources import SPLITS, find_source
from peftlab.data.surveyed import Rows
from peftlab.errors import DataError
from peftlab.recipe.records import Data
from peftlab.runs.files import write_json

TokenLengths = Callable[[Sequence[str], Sequence[str] | None], Sequence[int]]


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
    found = checked_rows(
        source,
        parsed,
        data,
        seed=seed,
        labels="many" if multi_label else "one",
        row_lengths=partial(_row_lengths, token_lengths) if token_lengths is not None else None,
        max_length=max_length,
    )
    fingerprint, names = _fingerprint(found.rows), found.label_names
    report = found.report | {"fingerprint": fingerprint}
    if report_path is not None:
        write_json(report_path, report)
    stop_at(found.findings, report_path)
    train, validation, test = (_encode(split, found.rows[split], names, multi_label=multi_label) for split in SPLITS)
    return Splits(train, validation, test, names, multi_label, source.description, fingerprint, report)


def _row_lengths(token_lengths: TokenLengths, rows: Rows) -> NDArray[np.int32]:
    return np.asarray(token_lengths(rows.texts, rows.pairs), np.int32)


def _encode(name: SplitName, rows: Rows, names: Sequence[str], *, multi_label: bool) -> Split:
    index = {label: place for place, label in enumerate(names)}
    labels: NDArray[Any]
    if multi_label:
        of_sets = np.zeros((len(rows.facts.label_sets), len(names)), np.float32)
        for place, one in enumerate(rows.facts.label_sets):
            of_sets[place, [index[label] for label in one]] = 1.0
        labels = of_sets[rows.sets]
    else:
        labels = np.asarray([index[one[0]] for one in rows.facts.label_sets], np.int64)[rows.sets]
    return Split(name, rows.ids, rows.texts, rows.pairs, labels)


def _fingerprint(rows: Mapping[SplitName, Rows]) -> str:
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
