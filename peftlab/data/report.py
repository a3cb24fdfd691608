"""What `data_report.json` says of the rows of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.checks import Finding
from peftlab.data.examples import Parsed
from peftlab.data.rows import SplitName
from peftlab.data.sources import Source
from peftlab.data.surveyed import Rows


def data_report(
    *,
    source: Source,
    parsed: Mapping[SplitName, Parsed],
    rows: Mapping[SplitName, Rows],
    train_of: int,
    findings: Sequence[Finding],
    label_names: Sequence[str],
    multi_label: bool,
    split_record: Mapping[str, Any],
    lengths: Mapping[SplitName, NDArray[Any]] | None,
    max_length: int | None,
) -> dict[str, Any]:
    """Return the report, made of JSON types; the fingerprint of what is made of the rows is still empty.

    `rows` are those that the run uses, with their token `lengths`, [rows]; train was drawn from `train_of` rows.
    `warnings` holds one sentence for each finding that does not stop the run.
    """
    splits = {
        split: _summary(examples, label_names, lengths[split] if lengths is not None else None, max_length)
        for split, examples in rows.items()
    }
    notes = [*source.notes, *(note for part in parsed.values() for note in part.notes), *_split_notes(split_record)]
    if len(rows["train"]) < train_of:
        splits["train"]["drawn_from"] = train_of
        absent = sum(count == 0 for count in splits["train"]["class_counts"].values())
        without = f"; labels without a row among them: {absent}" if absent else ""
        notes.append(f"train on {len(rows['train']):,} of {train_of:,} rows (data.train_rows){without}")
    return {
        "source": dict(source.description),
        "synthetic": bool(source.description.get("synthetic")),
        "language": source.description.get("language"),
        "fingerprint": "",
        "multi_label": multi_label,
        "label_names": list(label_names),
        "split": dict(split_record),
        "splits": splits,
        "left_out": {split: _left_out(part) for split, part in parsed.items()},
        "findings": [finding.record() for finding in findings],
        "notes": notes,
        "warnings": [finding.line(3) for finding in findings if finding.severity == "warn"] + _repeated_ids(parsed),
    }


def _summary(rows: Rows, names: Sequence[str], tokens: NDArray[Any] | None, max_length: int | None) -> dict[str, Any]:
    counts = rows.label_counts()
    summary: dict[str, Any] = {
        "rows": len(rows),
        "class_counts": {name: counts[name] for name in names},
        "without_label": rows.set_counts().get((), 0),
        "characters": _distribution(rows.characters),
    }
    if tokens is not None:
        summary["tokens"] = _distribution(tokens)
        if max_length is not None:
            cut = int((tokens > max_length).sum())
            summary["truncated"] = {"max_length": max_length, "rows": cut, "share": cut / max(len(rows), 1)}
    return summary


def _distribution(values: NDArray[Any]) -> dict[str, int] | None:
    """Return smallest, median, 95th percentile and largest value, each one that occurs; None for no values."""
    if not len(values):
        return None
    quantiles = np.quantile(values, [0.0, 0.5, 0.95, 1.0], method="inverted_cdf")
    return dict(zip(("min", "median", "p95", "max"), map(int, quantiles), strict=True))


def _left_out(part: Parsed) -> dict[str, Any]:
    """Return every row of one table that could not be used, with its reasons."""
    reasons: dict[str, list[str]] = {}
    for entry in part.unusable:
        reasons.setdefault(entry.place, []).append(entry.reason)
    return {"rows": len(reasons), "places": {place: "; ".join(listed) for place, listed in reasons.items()}}


def _split_notes(record: Mapping[str, Any]) -> list[str]:
    if not record["made"]:
        return []
    notes = [
        f"{' and '.join(record['made'])} split off train, stratified by {record['stratified_by']}, "
        f"seed {record['seed']}, rows of equal texts kept together"
    ]
    kept = record["kept_in_train"]
    if kept:
        listed = ", ".join(f'"{name}" {count}' for name, count in list(kept.items())[:10])
        notes.append(f"labels with too few texts to split stay in train: {listed}{', ...' if len(kept) > 10 else ''}")
    return notes


def _repeated_ids(parsed: Mapping[SplitName, Parsed]) -> list[str]:
    return [
        f"{split}: rows with the id of an earlier row: {part.repeated_ids:,}; make the column of data.id unique"
        for split, part in parsed.items()
        if part.repeated_ids
    ]
