"""The page of a search: accuracy and cost of each rung, and what each step added; from `search.json` alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from peftlab.errors import RunError
from peftlab.reports.suite_page import page
from peftlab.reports.suite_report import Section, markdown
from peftlab.reports.suite_tables import Cell, Table
from peftlab.reports.svg_charts import Point, scatter, standalone
from peftlab.reports.wording import bytes_text, seconds_text
from peftlab.runs.files import write_text

RECORD = "search.json"
MARKDOWN, PAGE, CHART = "SEARCH.md", "SEARCH.html", "climb.svg"
_CEILINGS = {
    "trainable_parameters": "{:,} trained parameters",
    "shipped_mb": "{:g} MB shipped",
    "peak_memory_gb": "{:g} GB of memory",
    "latency_ms": "{:g} ms a text",
    "minutes": "{:g} minutes of search",
    "labels": "{:,} labels",
}


def read_search(folder: Path) -> dict[str, Any]:
    """Return the record of the search in `folder`; RunError where there is none."""
    path = folder / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is no record of a search: {type(error).__name__}") from None
    return record


def climb_files(record: Mapping[str, Any]) -> dict[str, str]:
    """Return SEARCH.md, SEARCH.html and the chart by name. The same record, the same bytes."""
    sections, title = tuple(_sections(record)), str(record["title"])
    first = _capital(str(record["sentence"])) + "."
    files = {MARKDOWN: markdown(title, first, sections), PAGE: page(title, first, sections)}
    return files | {part.chart[0]: standalone(part.chart[1]) for part in sections if part.chart is not None}


def write_climb(folder: Path) -> tuple[Path, ...]:
    """Write the page of the search in `folder` beside its record and return the files' paths."""
    files = climb_files(read_search(folder))
    for name, text in files.items():
        write_text(folder / name, text)
    return tuple(folder / name for name in files)


def _sections(record: Mapping[str, Any]) -> Iterator[Section]:
    rungs = record["rungs"]
    climbed = [one for one in rungs if one["validation"] is not None]
    yield Section("What was asked", _asked(record))
    chart = (CHART, _chart(record, climbed)) if climbed else None
    about = "Bars are 95 % intervals of accuracy on validation, against the wall time of a rung with all its trials."
    yield Section("The climb", (about,) if climbed else ("No rung was climbed.",), chart, _climb_table(rungs))
    trials = _trials_table(rungs)
    yield Section("Trials", ("Each is a run that never saw a test row.",), table=trials, folded=True)
    yield Section("How to read this", _reading(record))


def _asked(record: Mapping[str, Any]) -> tuple[str, ...]:
    ceilings = [_CEILINGS[key].format(value) for key, value in record["ceilings"].items()]
    lines = [f"Target: accuracy {record['target']:g}.", f"Ceilings: {', '.join(ceilings) or 'none'}."]
    encoder, data, device = record["encoder"], record["data"], record["device"]
    if encoder is not None and encoder["used"] is not None:
        asked = f", in place of {encoder['requested']}, which could not be reached" if record["stand_in"] else ""
        lines.append(f"Encoder: {encoder['used']}{asked}.")
    if data is not None:
        made = " The rows are made up." if data["synthetic"] else ""
        counts = ", ".join(f"{count:,} {name}" for name, count in data["rows"].items())
        lines.append(f"Rows: {counts}, from {data['source'].get('used', 'files')}.{made}")
    if device is not None:
        lines.append(f"Machine: {device['type']} ({device['name']}, {device['threads']} threads).")
    return tuple(lines)


def _chart(record: Mapping[str, Any], climbed: list[dict[str, Any]]) -> str:
    points = []
    for one in climbed:
        found = one["validation"]
        says = f"{one['rung']}: {found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f}), "
        says += f"{one['trainable_parameters']:,} trained parameters, {seconds_text(one['seconds'])}"
        seconds = max(0.1, one["seconds"])
        points.append(Point(one["rung"], seconds, found["value"], found["low"], found["high"], says))
    return scatter(
        points,
        title="Validation accuracy of each rung against its time",
        across="seconds of the rung (log)",
        target=record["target"],
        upward="validation accuracy",
    )


def _climb_table(rungs: list[dict[str, Any]]) -> Table:
    heads: tuple[str, ...] = ("rung", "what", "validation accuracy", "95 % interval")
    heads += ("added to the best before, paired 95 % interval",)
    heads += ("trained parameters", "shipped", "time", "trials")
    rows = []
    for one in rungs:
        found, gain = one["validation"], one["gain"]
        if found is None:
            rows.append((Cell(one["rung"]), Cell(f"{one['state']}: {one['reason']}"), *[Cell("-")] * 7))
            continue
        added = (
            f"{100 * gain['value']:+.2f} points ({100 * gain['low']:+.2f} to {100 * gain['high']:+.2f})"
            if gain
            else "-"
        )
        rows.append(
            (
                Cell(one["rung"]),
                Cell(one["about"] or one["method"]),
                Cell(f"{found['value']:.4f}", found["value"]),
                Cell(f"{found['low']:.4f} to {found['high']:.4f}", found["low"]),
                Cell(added, gain["value"] if gain else None),
                Cell(f"{one['trainable_parameters']:,}", one["trainable_parameters"]),
                Cell(bytes_text(one["shipped_bytes"]), one["shipped_bytes"]),
                Cell(seconds_text(one["seconds"]), one["seconds"]),
                Cell(str(len(one["trials"])), len(one["trials"])),
            )
        )
    return Table(heads, tuple(rows))


def _trials_table(rungs: list[dict[str, Any]]) -> Table:
    rows = [
        (
            Cell(trial["name"] + (" (chosen)" if trial["name"] == one["chosen"] else "")),
            Cell(f"{trial['learning_rate']:g}" if trial["learning_rate"] is not None else "-", trial["learning_rate"]),
            Cell(trial["state"] + (f": {trial['reason']}" if trial["reason"] else "")),
            Cell(str(trial["validations"]), trial["validations"]),
            Cell(f"{trial['last']:.4f}" if trial["last"] is not None else "-", trial["last"]),
            Cell(seconds_text(trial["seconds"]), trial["seconds"]),
        )
        for one in rungs
        for trial in one["trials"]
    ]
    return Table(("trial", "learning rate", "state", "validations", "last value", "time"), tuple(rows))


def _reading(record: Mapping[str, Any]) -> tuple[str, ...]:
    looks = record["looks_at_validation"]
    times = f"{looks} time{'s' if looks != 1 else ''}"
    lines = [
        f"Validation was looked at {times}, each time against a 95 % interval of its own: by luck alone one of so "
        f"many rungs clears the target wrongly with a probability of up to {100 * (1 - 0.975**looks):.0f} %, and the "
        "best of several trials looks a little better than it is. The verdict does not rest on it: the chosen rung "
        "alone was scored on the test split, once.",
        "Reached: the whole 95 % interval on the test split is at or above the target.",
        "What a step added is the difference of accuracy to the best rung before it, paired by validation row; one "
        "seed, so it says nothing of the spread between seeds.",
    ]
    labels = record["what_would_change_it"]["labels"]
    if labels is not None:
        lines.append(
            f"More labels: the error of {labels['curve_of']} at a quarter, a half and all of the rows falls as rows to "
            f"the power -{labels['exponent']:g}; the same power is taken to hold for the best rung. An extrapolation, "
            "not a promise."
        )
    lines.append(f"This page is made from `{RECORD}` beside it, and from nothing else.")
    return tuple(lines)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:].replace("_", " ") if text else text
