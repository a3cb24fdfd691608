"""Run a recipe's curators in order, write down what they did, and do it again from what was written."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from peftlab.curation.review import write_review
from peftlab.curation.rows import Bench, Change, Curated, ReviewRow, Rows, apply_changes, training_rows
from peftlab.data.rows import Split
from peftlab.errors import DataError
from peftlab.recipe.plugins import load_plugin
from peftlab.recipe.records import Choice, Record
from peftlab.runs.files import whole_folder, write_json, write_text

RECORD = "curation.json"
CHANGES = "changes.jsonl"
EXAMPLES = 10
"""Changes of each curator that the record shows."""


@dataclass(frozen=True)
class Step:
    """What one curator did. `seconds`: wall time. `changes`: how many of each action; `examples`: some of them."""

    name: str
    config: dict[str, Any]
    rows_in: int
    rows_out: int
    changes: dict[str, int]
    figures: dict[str, Any]
    sentences: tuple[str, ...]
    examples: tuple[dict[str, Any], ...]
    seconds: float

    def sentence(self) -> str:
        """Return one line for people."""
        done = ", ".join(f"{action} {count:,}" for action, count in self.changes.items()) or "nothing changed"
        return f"curate {self.name}: {self.rows_in:,} rows in, {self.rows_out:,} out; {done}; {self.seconds:.1f} s"


@dataclass(frozen=True)
class Curation:
    """All that the curators of a recipe did. `lines`: their changes as written; `reviews`: by step, for a person."""

    split: Split
    steps: tuple[Step, ...]
    lines: tuple[dict[str, Any], ...]
    reviews: dict[int, tuple[ReviewRow, ...]]


def run_curators(choices: Sequence[Choice[Record]], split: Split, bench: Bench) -> Curation:
    """Let each of `choices` act on the training rows `split`, in order; `bench.seed` is the recipe's seed.

    Raises DataError where no row, or rows of one label only, would be left to train on.
    """
    rows = training_rows(split)
    steps: list[Step] = []
    lines: list[dict[str, Any]] = []
    reviews: dict[int, tuple[ReviewRow, ...]] = {}
    for number, choice in enumerate(choices, start=1):
        started = time.perf_counter()
        own = replace(bench, seed=_own_seed(bench.seed, number))
        done: Curated = load_plugin("curators", choice.name).curate(rows, choice.config, own)
        made = list(_lines(rows, done.changes, number, choice.name, bench))
        after = apply_changes(rows, done.changes, bench.label_names)
        _refuse_too_few(after, choice.name, bench)
        lines += made
        if done.review:
            reviews[number] = tuple(done.review)
        steps.append(
            Step(
                name=choice.name,
                config=choice.config.model_dump(mode="json"),
                rows_in=len(rows),
                rows_out=len(after),
                changes=dict(sorted(Counter(change.action for change in done.changes).items())),
                figures=dict(done.figures),
                sentences=(*done.sentences, *_lost_labels(rows, after, bench)),
                examples=tuple(made[:EXAMPLES]),
                seconds=time.perf_counter() - started,
            )
        )
        rows = after
    return Curation(rows.split, tuple(steps), tuple(lines), reviews)


def write_curation(folder: Path, done: Curation, *, key: str, label_names: Sequence[str]) -> None:
    """Write `curation.json`, `changes.jsonl` and the review files into `folder`, whole or not at all."""
    with whole_folder(folder) as target:
        write_text(target / CHANGES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in done.lines))
        reviews = {}
        for number, rows in done.reviews.items():
            path = target / f"review-{number}-{done.steps[number - 1].name}"
            write_review(path, rows, label_names)
            reviews[str(number)] = path.with_suffix(".csv").name
        record = {
            "key": key,
            "rows": rows_hash(done.split),
            "rows_out": len(done.split),
            "reviews": reviews,
            "steps": [asdict(step) for step in done.steps],
        }
        write_json(target / RECORD, record)


def read_curation(folder: Path, split: Split, bench: Bench, *, key: str) -> Split | None:
    """Return the training rows after the changes that `folder` holds; None where it holds none of this `key`.

    Raises DataError where other rows come out than were written down.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        text = (folder / CHANGES).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    if record["key"] != key:
        return None
    try:
        rows = _replayed(split, text, bench)
    except (KeyError, TypeError, ValueError):
        rows = None
    if rows is None or rows_hash(rows) != record["rows"]:
        raise DataError(f"{folder}: the changes there do not give the rows that were trained on; start a new run")
    return rows


def _replayed(split: Split, text: str, bench: Bench) -> Split:
    """Return `split` after the changes in `text`, as `changes.jsonl` holds them."""
    by_step: dict[int, list[Change]] = {}
    for line in map(json.loads, text.splitlines()):
        fields = {name: line[name] for name in ("action", "row", "why", "weight", "score") if name in line}
        if line["action"] == "add":
            fields |= {"text": line["text"], "pair": line.get("pair")}
        labels = tuple(line["labels"]) if "labels" in line else None
        by_step.setdefault(line["step"], []).append(Change(**fields, labels=labels))
    rows = training_rows(split)
    for step in sorted(by_step):
        rows = apply_changes(rows, by_step[step], bench.label_names)
    return rows.split


def rows_hash(split: Split) -> str:
    """Return the SHA-256, in hexadecimal, of ids, texts, pairs, labels and weights."""
    total = hashlib.sha256()
    pairs: Sequence[str | None] = split.pairs or [None] * len(split)
    for values in zip(split.ids, split.texts, pairs, split.labels.tolist(), split.row_weights().tolist(), strict=True):
        total.update(json.dumps(values, ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()


def _own_seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"curate {seed} {number}".encode()).digest()[:4], "big")


def _lines(rows: Rows, changes: Sequence[Change], step: int, name: str, bench: Bench) -> Iterator[dict[str, Any]]:
    """Yield each change as JSON: what is needed to do it again, and what a person wants to see."""
    place_of = {int(number): place for place, number in enumerate(rows.numbers)}
    for change in changes:
        place = place_of[change.row]
        line: dict[str, Any] = {"step": step, "curator": name, "action": change.action, "row": change.row}
        line["id"] = rows.split.ids[place]
        line["before"] = list(bench.labels_of(rows, place))
        if change.labels is not None:
            line["labels"] = list(change.labels)
        line |= {
            key: value
            for key, value in (("weight", change.weight), ("score", change.score), ("pair", change.pair))
            if value is not None
        }
        line["text"] = rows.text(place) if change.text is None else change.text
        line["why"] = change.why
        yield line


def _refuse_too_few(rows: Rows, name: str, bench: Bench) -> None:
    if not len(rows):
        raise DataError(f"curate: {name} leaves no training row; drop less")
    if not bench.multi_label and len(set(rows.labels.tolist())) < 2:
        raise DataError(f"curate: {name} leaves training rows of one label only; drop less")


def _lost_labels(before: Rows, after: Rows, bench: Bench) -> Iterator[str]:
    if bench.multi_label:
        return
    lost = sorted(set(before.labels.tolist()) - set(after.labels.tolist()))
    if lost:
        yield f"no training row is left of: {', '.join(bench.label_names[index] for index in lost)}"
