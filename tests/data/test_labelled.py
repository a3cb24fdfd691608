"""From a recipe's data section to split, labelled rows and their report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftlab.data.labelled import load_labelled
from peftlab.data.rows import Split, Splits
from peftlab.errors import DataError
from peftlab.recipe.records import Data

Row = dict[str, Any]


def rows_of(word: str, number: int) -> list[Row]:
    return [{"text": f"{word} {index}", "label": ["cat", "dog", "owl"][index % 3]} for index in range(number)]


def write(folder: Path, **splits: Sequence[Row]) -> dict[str, str]:
    """Write each split as JSON Lines; return the keys of the data section that name them."""
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: f"{name}.jsonl" for name in splits}


def load(
    folder: Path,
    settings: dict[str, Any],
    *,
    seed: int = 0,
    multi_label: bool = False,
    max_length: int | None = None,
    token_lengths: Callable[[Sequence[str], Sequence[str] | None], Sequence[int]] | None = None,
) -> Splits:
    return load_labelled(
        Data.model_validate(settings),
        recipe_path=folder / "recipe.toml",
        seed=seed,
        multi_label=multi_label,
        max_length=max_length,
        report_path=folder / "run" / "data_report.json",
        token_lengths=token_lengths,
    )


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "run" / "data_report.json").read_text())
    return report


def given(folder: Path, *, train: Sequence[Row] = (), test: Sequence[Row] = (), **checks: str) -> dict[str, Any]:
    """Settings for 30, 6 and 6 good rows, with more rows behind those of train and test."""
    files = write(
        folder,
        train=[*rows_of("train", 30), *train],
        validation=rows_of("validation", 6),
        test=[*rows_of("test", 6), *test],
    )
    return {**files, "checks": checks}


def names_of(splits: Splits, split: Split) -> list[str]:
    return [splits.label_names[index] for index in split.labels]


def test_given_splits_are_used_row_for_row(tmp_path: Path) -> None:
    splits = load(tmp_path, given(tmp_path))
    assert list(splits.test.texts) == [f"test {index}" for index in range(6)]
    assert list(splits.test.ids) == [f"test.jsonl:{line}" for line in range(1, 7)]
    assert splits.label_names == ("cat", "dog", "owl")
    assert splits.train.labels.dtype == np.int64
    assert names_of(splits, splits.test) == ["cat", "dog", "owl"] * 2
    assert splits.test.pairs is None
    assert splits.source["used"] == "files"


def test_the_report_is_written_and_is_what_the_splits_carry(tmp_path: Path) -> None:
    repeat = {"text": "TRAIN 0", "label": "dog"}
    splits = load(tmp_path, given(tmp_path, train=[repeat]))
    report = report_of(tmp_path)
    assert report == splits.report
    assert report["fingerprint"] == splits.fingerprint
    assert report["splits"]["train"]["class_counts"] == {"cat": 10, "dog": 11, "owl": 10}
    assert report["splits"]["test"]["rows"] == 6
    assert report["splits"]["test"]["characters"] == {"min": 6, "median": 6, "p95": 6, "max": 6}
    assert report["split"] == {"given": ["train", "validation", "test"], "made": []}
    assert [finding["check"] for finding in report["findings"]] == ["duplicates", "conflicting_labels"]
    assert report["findings"][0]["places"] == {"train": ["train.jsonl:31 = train.jsonl:1"]}
    assert [line.split(":")[0] for line in report["warnings"]] == ["duplicates", "conflicting_labels"]
    assert report["synthetic"] is False


def test_missing_splits_are_made_6_2_2_and_the_report_says_how(tmp_path: Path) -> None:
    splits = load(tmp_path, write(tmp_path, train=rows_of("text", 150)), seed=5)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [90, 30, 30]
    for split in (splits.train, splits.validation, splits.test):
        assert set(np.bincount(split.labels)) == {len(split) // 3}
    record = report_of(tmp_path)["split"]
    assert record["made"] == ["validation", "test"]
    assert record["seed"] == 5
    assert record["stratified_by"] == "label"
    assert "stratified by label, seed 5" in report_of(tmp_path)["notes"][0]


def test_the_split_seed_of_the_recipe_wins_over_the_training_seed(tmp_path: Path) -> None:
    files = write(tmp_path, train=rows_of("text", 60))
    fixed = {**files, "split_seed": 7}
    assert load(tmp_path, fixed, seed=0).test.ids == load(tmp_path, fixed, seed=1).test.ids
    assert load(tmp_path, files, seed=7).test.ids == load(tmp_path, fixed).test.ids
    assert load(tmp_path, files, seed=0).test.ids != load(tmp_path, files, seed=1).test.ids


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.2), (0.8, 0.2, 0.0), (0.0, 0.5, 0.5)])
def test_shares_that_cannot_be_are_refused_where_a_split_must_be_made(
    shares: tuple[float, float, float], tmp_path: Path
) -> None:
    files = write(tmp_path, train=rows_of("text", 60))
    with pytest.raises(DataError, match=r"data\.split: .* cannot be used; expected shares"):
        load(tmp_path, {**files, "split": shares})


def test_all_findings_that_stop_come_together_after_the_report_is_written(tmp_path: Path) -> None:
    settings = given(
        tmp_path,
        train=[{"text": "", "label": "cat"}, {"text": "no label here"}, {"text": "train 1", "label": "dog"}],
        test=[{"text": "who", "label": "elk"}],
        duplicates="stop",
    )
    with pytest.raises(DataError) as caught:
        load(tmp_path, settings)
    head, *lines = str(caught.value).splitlines()
    assert head.startswith("data: 4 findings stop the run; see ")
    assert [line.strip().split(":")[0] for line in lines] == [
        "empty_text",
        "missing_label",
        "unseen_label",
        "duplicates",
    ]
    assert "train.jsonl:31" in lines[0]
    assert "train.jsonl:32" in lines[1]
    assert "test.jsonl:7" in lines[2]
    assert [finding["severity"] for finding in report_of(tmp_path)["findings"]] == ["stop"] * 4
    assert report_of(tmp_path)["warnings"] == []


def test_rows_that_cannot_be_used_are_left_out_counted_and_listed_if_the_recipe_lets_them(tmp_path: Path) -> None:
    settings = given(
        tmp_path,
        train=[{"text": None, "label": "cat"}],
        test=[{"text": "x", "label": None}, {"text": "", "label": ""}, {"text": "y", "label": "owl"}],
        empty_text="warn",
        missing_label="warn",
    )
    splits = load(tmp_path, settings)
    assert [len(splits.train), len(splits.test)] == [30, 7]
    assert splits.test.ids[-1] == "test.jsonl:9"
    report = report_of(tmp_path)
    assert report["splits"]["test"]["rows"] == 7
    assert report["left_out"]["test"] == {
        "rows": 2,
        "places": {"test.jsonl:7": "no label", "test.jsonl:8": "the text is empty; the label is empty"},
    }
    assert report["left_out"]["train"]["rows"] == 1
    assert all("these rows are left out" in line for line in report["warnings"])


def test_test_rows_with_other_findings_are_kept_as_they_are(tmp_path: Path) -> None:
    more = [
        {"text": "train 0", "label": "cat"},
        {"text": "test 0", "label": "dog"},
        {"text": "caf\ufffd", "label": "owl"},
    ]
    splits = load(tmp_path, given(tmp_path, test=more))
    assert list(splits.test.texts[6:]) == ["train 0", "test 0", "caf\ufffd"]
    checks = {finding["check"] for finding in report_of(tmp_path)["findings"]}
    assert checks == {"broken_encoding", "duplicates", "conflicting_labels", "split_overlap"}


def test_a_label_that_only_test_has_becomes_a_class_if_the_recipe_lets_it(tmp_path: Path) -> None:
    splits = load(tmp_path, given(tmp_path, test=[{"text": "who", "label": "elk"}], unseen_label="warn"))
    assert splits.label_names == ("cat", "dog", "elk", "owl")
    assert names_of(splits, splits.test)[-1] == "elk"
    assert report_of(tmp_path)["splits"]["train"]["class_counts"]["elk"] == 0


def test_pairs_are_read_and_count_as_one_text(tmp_path: Path) -> None:
    rows = [{"text": f"a {i % 10}", "pair": f"b {i}", "label": "xy"[i % 2]} for i in range(30)]
    splits = load(tmp_path, {**write(tmp_path, train=rows, validation=rows[:4], test=rows[4:8]), "pair": "pair"})
    assert splits.train.pairs == [f"b {i}" for i in range(30)]
    assert {finding["check"] for finding in report_of(tmp_path)["findings"]} == {"split_overlap"}
    assert report_of(tmp_path)["splits"]["train"]["characters"]["min"] == 6


def test_multi_label_rows_become_zeros_and_ones(tmp_path: Path) -> None:
    values: list[Any] = [["b", "a"], [], "c|a", "b", ["c"]]
    rows = [{"text": f"text {i}", "label": values[i % 5]} for i in range(50)]
    splits = load(tmp_path, write(tmp_path, train=rows, validation=rows[:5], test=rows[:5]), multi_label=True)
    assert splits.label_names == ("a", "b", "c")
    assert splits.test.labels.dtype == np.float32
    assert splits.test.labels.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert report_of(tmp_path)["splits"]["test"]["without_label"] == 1


def test_multi_label_splits_are_stratified_by_set_of_labels(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": ["a", "a|b", ""][i % 3]} for i in range(150)]
    splits = load(tmp_path, write(tmp_path, train=rows), multi_label=True)
    assert report_of(tmp_path)["split"]["stratified_by"] == "set of labels"
    assert splits.test.labels.sum(0).tolist() == [20, 10]


def test_train_rows_draws_a_stratified_part_and_leaves_checks_and_labels_alone(tmp_path: Path) -> None:
    settings = given(tmp_path, train=[{"text": "train 0", "label": "cat"}, {"text": "elk", "label": "elk"}])
    splits = load(tmp_path, {**settings, "train_rows": 3})
    assert len(splits.train) == 3
    assert len(splits.test) == 6
    assert splits.label_names == ("cat", "dog", "elk", "owl")
    report = report_of(tmp_path)
    assert report["splits"]["train"]["rows"] == 3
    assert report["splits"]["train"]["drawn_from"] == 32
    assert "train on 3 of 32 rows (data.train_rows); labels without a row among them: 1" in report["notes"]
    assert "duplicates" in {finding["check"] for finding in report["findings"]}
    other = load(tmp_path, {**settings, "train_rows": 12}, seed=1)
    assert other.train.ids != load(tmp_path, {**settings, "train_rows": 12}, seed=2).train.ids


def test_token_lengths_and_the_share_that_is_cut_are_reported(tmp_path: Path) -> None:
    seen: list[Sequence[str] | None] = []

    def lengths(texts: Sequence[str], pairs: Sequence[str] | None) -> list[int]:
        seen.append(pairs)
        return [10 if text.endswith("0") else 4 for text in texts]

    load(tmp_path, {**given(tmp_path), "train_rows": 12}, max_length=8, token_lengths=lengths)
    report = report_of(tmp_path)
    assert seen == [None] * 3
    assert report["splits"]["test"]["tokens"] == {"min": 4, "median": 4, "p95": 10, "max": 10}
    assert report["splits"]["test"]["truncated"] == {"max_length": 8, "rows": 1, "share": pytest.approx(1 / 6)}
    (finding,) = report["findings"]
    assert finding["by_split"] == {"train": 3, "validation": 1, "test": 1}


def test_the_id_column_names_rows_and_repeated_ids_are_a_warning(tmp_path: Path) -> None:
    rows = [{**row, "key": index % 29} for index, row in enumerate(rows_of("train", 30))]
    files = write(tmp_path, train=rows, validation=rows_of("v", 6), test=rows_of("t", 6))
    for name in ("validation", "test"):
        write(tmp_path, **{name: [{**row, "key": f"{name}-{i}"} for i, row in enumerate(rows_of(name, 6))]})
    splits = load(tmp_path, {**files, "id": "key"})
    assert splits.test.ids[0] == "test-0"
    assert report_of(tmp_path)["warnings"] == [
        "train: rows with the id of an earlier row: 1; make the column of data.id unique"
    ]


def test_the_fingerprint_follows_the_content_and_nothing_else(tmp_path: Path) -> None:
    first = load(tmp_path, given(tmp_path)).fingerprint
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert load(elsewhere, given(elsewhere)).fingerprint == first
    changed = given(elsewhere, test=[{"text": "one more", "label": "owl"}])
    assert load(elsewhere, changed).fingerprint != first


def test_a_run_whose_rows_are_all_unusable_stops_with_the_reason(tmp_path: Path) -> None:
    rows = [{"text": f"text {index}", "label": None} for index in range(9)]
    settings = {**write(tmp_path, train=rows), "checks": {"missing_label": "warn"}}
    with pytest.raises(DataError, match="no_rows: no usable rows in train and validation and test"):
        load(tmp_path, settings)
    assert report_of(tmp_path)["left_out"]["train"]["rows"] == 9


def test_true_labels_of_the_built_in_tickets_reach_no_split(tmp_path: Path) -> None:
    from peftlab.data.tickets.generate import generate_tickets

    splits = load(tmp_path, {"source": "builtin:tickets-en"})
    noisy = {ticket.id: ticket for ticket in generate_tickets("en") if ticket.split == "train"}
    assert names_of(splits, splits.train) == [noisy[name].label for name in splits.train.ids]
    assert any(noisy[name].label != noisy[name].true_label for name in splits.train.ids)
    assert "true_label" not in json.dumps(splits.report)
    assert splits.report["synthetic"] is True
    assert splits.report["language"] == "en"


def test_loading_rows_imports_neither_torch_nor_datasets(tmp_path: Path) -> None:
    files = write(tmp_path, train=rows_of("text", 60))
    program = (
        "import sys; from pathlib import Path; from peftlab.data.labelled import load_labelled\n"
        "from peftlab.recipe.records import Data\n"
        f"load_labelled(Data(train={files['train']!r}), recipe_path=Path({str(tmp_path / 'r.toml')!r}), seed=0, "
        "multi_label=False, max_length=None)\n"
        "print([name for name in ('torch', 'datasets', 'sklearn', 'pyarrow') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
