"""What curators did is written down, and is done again from there to the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from peftlab.curation.rows import Bench, Change, apply_changes, training_rows
from peftlab.curation.run import read_curation, rows_hash, run_curators, write_curation
from peftlab.data.rows import Split
from peftlab.errors import DataError
from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.recipe.records import Choice, Record

NAMES = ("a", "b")


def choice(name: str, **settings: object) -> Choice[Record]:
    """Return the curator `name` as a recipe names it."""
    return Choice[Record](name=name, config=load_plugin("curators", name).Config(**settings))


@pytest.fixture
def split() -> Split:
    """Return twelve rows, two of them of the same text, eight of label a."""
    texts = [*(f"number {number} of many words" for number in range(11)), "Number 3 of many  words"]
    return Split("train", [f"t:{row}" for row in range(1, 13)], texts, None, np.asarray([0] * 8 + [1] * 3 + [0]))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(NAMES, False, 3, tmp_path, None)


CHOICES = (
    choice("duplicates", near=False),
    choice("balance"),
    choice("augment", share=0.4, weight=0.3, measured=0),
    choice("balance", how="weight", strength=0.7),
)


def test_changes_keep_the_order_of_rows_and_put_new_ones_behind_them(split: Split) -> None:
    rows = apply_changes(
        training_rows(split),
        [
            Change("add", 2, "", labels=("b",), text="new", weight=0.25),
            Change("drop", 1, ""),
            Change("relabel", 3, "", labels=("b",)),
            Change("weight", 4, "", weight=0.5),
            Change("add", 4, "", labels=("a",), text="newer"),
        ],
        NAMES,
    )
    assert rows.numbers.tolist() == [*range(2, 13), 13, 14]
    assert rows.split.texts[-2:] == ["new", "newer"]
    assert rows.split.ids[-2:] == ["t:2+13", "t:4+14"]
    assert rows.labels.tolist() == [0, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 0]
    assert rows.split.row_weights()[[0, 2, -2, -1]].tolist() == [1.0, 0.5, 0.25, 0.5]


def test_labels_of_several_are_changed_as_a_set() -> None:
    split = Split("train", ["1", "2"], ["x", "y"], None, np.asarray([[1, 0], [0, 1]], np.float32))
    changes = [Change("relabel", 1, "", labels=("a", "b")), Change("add", 2, "", labels=(), text="z")]
    assert apply_changes(training_rows(split), changes, NAMES).labels.tolist() == [[1, 1], [0, 1], [0, 0]]


def test_every_curator_reports_rows_in_and_out_examples_and_seconds(split: Split, bench: Bench) -> None:
    steps = run_curators(CHOICES, split, bench).steps
    assert [(step.rows_in, step.rows_out) for step in steps] == [(12, 11), (11, 16), (16, 22), (22, 22)]
    assert [step.changes for step in steps] == [{"drop": 1}, {"add": 5}, {"add": 6}, {"weight": 22}]
    assert [len(step.examples) for step in steps] == [1, 5, 6, 10]
    assert all(step.seconds >= 0 for step in steps)
    assert "duplicates: 12 rows in, 11 out; drop 1" in steps[0].sentence()


def test_what_was_written_gives_the_same_rows_again_without_a_curator(
    split: Split, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_curators(CHOICES, split, bench)
    folder = bench.folder / "curation"
    write_curation(folder, done, key="k", label_names=NAMES)
    monkeypatch.setattr("peftlab.curation.run.load_plugin", None)
    again = read_curation(folder, split, bench, key="k")
    assert again is not None
    assert rows_hash(again) == rows_hash(done.split)
    assert again.row_weights().tobytes() == done.split.row_weights().tobytes()
    assert read_curation(folder, split, bench, key="another") is None
    assert read_curation(bench.folder / "nothing", split, bench, key="k") is None


def test_a_file_of_changes_that_was_altered_is_refused(split: Split, bench: Bench) -> None:
    folder = bench.folder / "curation"
    write_curation(folder, run_curators(CHOICES, split, bench), key="k", label_names=NAMES)
    path = folder / "changes.jsonl"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"drop", "row": 12', '"drop", "row": 11'), encoding="utf-8"
    )
    with pytest.raises(DataError, match="do not give the rows that were trained on"):
        read_curation(folder, split, bench, key="k")


def test_the_same_seed_does_the_same_and_another_seed_something_else(split: Split, bench: Bench) -> None:
    first, second = (run_curators(CHOICES, split, bench) for _ in range(2))
    other = run_curators(CHOICES, split, Bench(NAMES, False, 4, bench.folder, None))
    assert first.lines == second.lines
    assert first.lines != other.lines


def test_each_change_names_curator_row_and_text(split: Split, bench: Bench) -> None:
    line = run_curators(CHOICES, split, bench).lines[0]
    assert line == {
        "step": 1,
        "curator": "duplicates",
        "action": "drop",
        "row": 12,
        "id": "t:12",
        "before": ["a"],
        "text": "Number 3 of many  words",
        "why": "the same text as row 4",
    }
    assert json.loads(json.dumps(line)) == line


def test_a_curator_that_leaves_one_label_only_stops_the_run(bench: Bench) -> None:
    split = Split("train", list("1234"), ["x", "x", "y", "z"], None, np.asarray([0, 1, 1, 1]))
    with pytest.raises(DataError, match="duplicates leaves training rows of one label only"):
        run_curators([choice("duplicates", near=False)], split, bench)


@pytest.mark.parametrize("name", plugin_names("curators"))
def test_every_curator_keeps_the_contract(name: str) -> None:
    module = load_plugin("curators", name)
    assert len((module.__doc__ or "").partition("\n")[0]) <= 120
    assert isinstance(module.SINGLE_LABEL, bool)
    assert isinstance(module.PACKAGES, tuple)
    assert list(module.checks(module.Config(), False)) == []
    assert all(field.description for field in module.Config.model_fields.values())
