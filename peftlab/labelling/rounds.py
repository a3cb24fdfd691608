"""Rounds of labelling in a folder: files to fill in, what came back, and which rows are labelled by now."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from peftlab.curation.review import text_check
from peftlab.errors import DataError, UserError
from peftlab.runs.files import write_json, write_text

STATE = "state.json"
TRAIN = "train.jsonl"
COLUMNS = ("row", "check", "text", "pair", "suggested", "probability", "label")


@dataclass(frozen=True)
class Asked:
    """A row of the pool to label: its place in the pool, its line in the file, and what the probe thinks of it."""

    place: int
    row: int
    text: str
    pair: str | None
    suggested: str
    probability: float


@dataclass(frozen=True)
class State:
    """How far the labelling has come.

    `pool`: SHA-256 of the pool's file. `labels`: place in the pool to label. `rounds`: file, strategy and number of
    rows of each round, `taken` where it came back. A round that is not taken is open.
    """

    pool: str
    labels: Mapping[int, str]
    rounds: tuple[Mapping[str, Any], ...]

    @property
    def open_round(self) -> Mapping[str, Any] | None:
        """The round that was given out and has not come back."""
        return next((one for one in self.rounds if not one["taken"]), None)


def read_state(folder: Path, pool: str) -> State:
    """Return the state in `folder`, a new one where there is none; UserError where it is of another pool."""
    path = folder / STATE
    if not path.is_file():
        return State(pool, {}, ())
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        state = State(kept["pool"], {int(place): label for place, label in kept["labels"].items()}, (*kept["rounds"],))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}; name another folder with --work") from error
    if state.pool != pool:
        raise UserError(f"{folder} belongs to another pool, or the pool has changed; name another folder with --work")
    return state


def write_state(folder: Path, state: State) -> None:
    """Write `state` into `folder`."""
    labels = {str(place): label for place, label in sorted(state.labels.items())}
    write_json(folder / STATE, {"pool": state.pool, "labels": labels, "rounds": [dict(one) for one in state.rounds]})


def give_out(folder: Path, state: State, asked: Sequence[Asked], strategy: str) -> tuple[Path, State]:
    """Write the file of the next round, to be filled in, and return it with the new state. A byte order mark is for
    Excel.
    """
    path = folder / f"round-{len(state.rounds) + 1}.csv"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in asked:
        check = text_check(one.text + (one.pair or ""))
        writer.writerow([one.row, check, one.text, one.pair or "", one.suggested, f"{one.probability:.4f}", ""])
    write_text(path, "\ufeff" + text.getvalue())
    entry = {"file": path.name, "strategy": strategy, "rows": [one.place for one in asked], "taken": None}
    return path, State(state.pool, state.labels, (*state.rounds, entry))


def take_back(path: Path, state: State, texts: Mapping[int, str], label_names: Sequence[str]) -> tuple[int, State]:
    """Return how many labels the filled-in `path` holds and the state with them; rows left empty go back to the pool.

    `texts`: text, with its pair behind it, of each place of the pool that was given out. Raises DataError with the line
    for a label that there is none of, for a row that was not given out and for a file without any label.
    """
    given = state.open_round
    if given is None:
        raise UserError(f"{path}: no round is open; ask for one with --budget")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}; save it as CSV in UTF-8") from error
    reader = csv.DictReader(io.StringIO(text))
    lacking = [name for name in ("check", "label") if name not in (reader.fieldnames or ())]
    if lacking:
        raise DataError(f"{path}:1: lacks the column {lacking[0]!r}; keep the columns as written")
    places = {text_check(texts[place]): place for place in given["rows"]}
    labels: dict[int, str] = {}
    for record in reader:
        place = places.get((record["check"] or "").strip())
        if place is None:
            raise DataError(f"{path}:{reader.line_num}: this row was not given out in {given['file']}; leave it out")
        label = (record["label"] or "").strip()
        if not label:
            continue
        if label not in label_names:
            near = get_close_matches(label, label_names, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"labels are: {', '.join(label_names)}"
            raise DataError(f"{path}:{reader.line_num}: no label {label!r}; {advice}")
        labels[place] = label
    if not labels:
        raise DataError(f"{path}: the column label is empty in every row; fill it in first")
    rounds = tuple({**one, "taken": len(labels)} if one is given else one for one in state.rounds)
    return len(labels), State(state.pool, {**state.labels, **labels}, rounds)


def write_training_file(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows of text, perhaps pair, and label as JSONL: the file to train on, by name in a recipe's data.train."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
