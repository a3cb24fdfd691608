"""Each check finds what it says, counts it and names its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from peftlab.data.checks import Finding, find_problems
from peftlab.data.examples import Example, Unusable, text_key
from peftlab.data.rows import SplitName
from peftlab.recipe.records import DataChecks

Texts = Sequence[tuple[str, str]]
GOOD: Texts = [(f"text {index}", "ab"[index % 2]) for index in range(10)]


def split(name: SplitName, rows: Texts) -> list[Example]:
    places = [f"{name}.csv:{line}" for line in range(2, len(rows) + 2)]
    return [
        Example(place, place, text, None, (label,), text_key(text))
        for place, (text, label) in zip(places, rows, strict=True)
    ]


def find(
    train: Texts = GOOD,
    validation: Texts = (("v", "a"),),
    test: Texts = (("t", "b"),),
    checks: DataChecks | None = None,
    unusable: Mapping[SplitName, Sequence[Unusable]] | None = None,
) -> dict[str, Finding]:
    rows: dict[SplitName, Sequence[Example]] = {
        "train": split("train", train),
        "validation": split("validation", validation),
        "test": split("test", test),
    }
    found = find_problems(rows, unusable or {}, checks or DataChecks(), multi_label=False)
    return {finding.check: finding for finding in found}


def test_good_rows_have_no_findings() -> None:
    assert find() == {}


def test_duplicates_are_extra_copies_within_a_split_whatever_their_case_and_white_space() -> None:
    found = find(train=[*GOOD, ("TEXT 1", "b"), ("text  1", "b")], test=[("t", "b"), ("T", "b")])
    assert set(found) == {"duplicates"}
    finding = found["duplicates"]
    assert finding.count == 3
    assert finding.places == {
        "train": ["train.csv:12 = train.csv:3", "train.csv:13 = train.csv:3"],
        "test": ["test.csv:3 = test.csv:2"],
    }


def test_conflicting_labels_count_texts_and_name_all_their_rows_with_labels() -> None:
    finding = find(train=[*GOOD, ("text 1", "a"), ("text 1", "a")])["conflicting_labels"]
    assert finding.count == 1
    assert finding.places == {"train": ["train.csv:3 b", "train.csv:12 a", "train.csv:13 a"]}


def test_overlap_counts_rows_that_stand_in_an_earlier_split_by_pair_of_splits() -> None:
    found = find(validation=[("text 1", "b"), ("v", "a")], test=[("Text 1", "b"), ("V", "a"), ("t", "b"), ("t1", "b")])
    finding = found["split_overlap"]
    assert finding.count == 3
    assert "train and validation: 1" in finding.sentence
    assert "train and test: 1" in finding.sentence
    assert "validation and test: 2" in finding.sentence
    assert finding.places == {
        "validation": ["validation.csv:2 = train.csv:3"],
        "test": ["test.csv:2 = train.csv:3", "test.csv:3 = validation.csv:3"],
    }


def test_unseen_labels_are_named_with_their_rows_and_stop_by_default() -> None:
    finding = find(validation=[("v", "c")], test=[("t", "d"), ("u", "c"), ("w", "a")])["unseen_label"]
    assert finding.severity == "stop"
    assert finding.count == 3
    assert '"c", "d"' in finding.sentence
    assert finding.places == {"validation": ["validation.csv:2"], "test": ["test.csv:2", "test.csv:3"]}


@pytest.mark.parametrize("where", ["text", "label"])
def test_broken_encoding_is_looked_for_in_texts_and_labels(where: str) -> None:
    row = ("caf\ufffd", "b") if where == "text" else ("coffee", "caf\ufffd")
    finding = find(train=[*GOOD, row])["broken_encoding"]
    assert finding.severity == "warn"
    assert finding.places == {"train": ["train.csv:12"]}


def test_small_classes_and_a_large_ratio_are_imbalance() -> None:
    few = find(train=[*GOOD, ("x", "rare")])["imbalance"]
    assert '1 class has fewer than 5 training rows ("rare" 1)' in few.sentence
    many = [(f"more {index}", "a") for index in range(600)]
    ratio = find(train=[*GOOD, *many])["imbalance"]
    assert ratio.sentence == 'the largest class "a" has 605 training rows, the smallest "b" 5'
    assert "imbalance" not in find(train=[*GOOD, *many[:495]])


def test_a_text_of_more_than_a_hundred_thousand_characters_is_a_long_row() -> None:
    assert "long_rows" not in find(train=[*GOOD, ("x" * 100_000, "a")])
    assert find(train=[*GOOD, ("x" * 100_001, "a")])["long_rows"].places == {"train": ["train.csv:12"]}


@pytest.mark.parametrize(("cut", "found"), [(5, False), (6, True)])
def test_truncation_is_found_above_five_per_cent_of_a_split(cut: int, found: bool) -> None:
    rows: dict[SplitName, Sequence[Example]] = {
        "train": split("train", GOOD),
        "validation": split("validation", [(f"v{index}", "a") for index in range(100)]),
        "test": split("test", [("t", "b")]),
    }
    lengths = {"train": np.full(10, 8), "validation": np.asarray([9] * cut + [8] * (100 - cut)), "test": np.full(1, 8)}
    findings = find_problems(rows, {}, DataChecks(), multi_label=False, lengths=lengths, max_length=8)
    assert [finding.check for finding in findings] == (["truncation"] if found else [])
    if found:
        assert "6.0% of validation (6 of 100 rows)" in findings[0].sentence
        assert findings[0].places == {"validation": [f"validation.csv:{line}" for line in range(2, 8)]}


def test_one_class_in_training_and_an_empty_split_always_stop() -> None:
    found = find(train=[("x", "a"), ("y", "a")] * 5, test=[])
    assert found["one_class"].severity == found["no_rows"].severity == "stop"
    assert found["no_rows"].sentence == "no usable rows in test"


def test_unusable_rows_are_counted_by_reason() -> None:
    entries = [Unusable(f"train.csv:{line}", "missing_label", "no label") for line in (30, 31)]
    entries += [Unusable("train.csv:32", "missing_label", "the label is empty")]
    finding = find(unusable={"train": entries, "test": [Unusable("test.csv:9", "empty_text", "no text")]})
    assert finding["missing_label"].count == 3
    assert "(no label: 2, the label is empty: 1) in train (3)" in finding["missing_label"].sentence
    assert finding["empty_text"].places == {"test": ["test.csv:9"]}


def test_the_recipe_decides_what_stops() -> None:
    train = [*GOOD, ("text 1", "b")]
    assert find(train=train)["duplicates"].severity == "warn"
    assert find(train=train, checks=DataChecks(duplicates="stop"))["duplicates"].severity == "stop"


def test_a_record_keeps_twenty_places_a_split_and_all_counts() -> None:
    found = find(train=[*GOOD, *[("text 1", "b")] * 30], test=[("t", "b")] * 25)
    record = found["duplicates"].record()
    assert record["count"] == 54
    assert record["by_split"] == {"train": 30, "test": 24}
    assert {name: len(places) for name, places in record["places"].items()} == {"train": 20, "test": 20}


def test_a_line_names_the_first_places_and_says_what_to_do() -> None:
    finding = find(train=[*GOOD, *[("text 1", "b")] * 5], checks=DataChecks(duplicates="stop"))["duplicates"]
    assert finding.line(2) == (
        "duplicates: 5 rows repeat the text of an earlier row of the same split in train (5) (train.csv:12 = "
        "train.csv:3, train.csv:13 = train.csv:3, ...); keep one row of each text, or set "
        'data.checks.duplicates = "warn"'
    )
