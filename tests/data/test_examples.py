"""Values of a table become texts and label names, or a reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest

from peftlab.data.examples import Parsed, parse_table, text_key
from peftlab.data.readers import Role, Table


def parse(
    values: Sequence[object], *, multi: bool = False, texts: Sequence[object] | None = None, **columns: Sequence[object]
) -> Parsed:
    texts = texts if texts is not None else [f"text {index}" for index in range(len(values))]
    roles: dict[Role, Sequence[object]] = {"text": texts, "label": values}
    for role in ("pair", "id"):
        if role in columns:
            roles[role] = columns[role]
    return parse_table(Table("rows.csv", "", "", range(2, len(values) + 2), roles), multi_label=multi, separator="|")


def reasons(parsed: Parsed) -> list[str]:
    return [entry.reason for entry in parsed.unusable]


@pytest.mark.parametrize(
    ("value", "label", "said"),
    [
        ("sport", "sport", None),
        (" sport\t", "sport", "white space around them"),
        (3, "3", "integers"),
        (-1, "-1", "integers"),
        (2.0, "2", "whole floats"),
        (True, "true", "booleans"),
        (False, "false", "booleans"),
    ],
)
def test_labels_become_strings_and_what_was_converted_is_said(value: object, label: str, said: str | None) -> None:
    parsed = parse([value])
    assert parsed.examples[0].labels == (label,)
    if said is None:
        assert parsed.notes == ()
    else:
        assert said in parsed.notes[0]
        assert parsed.notes[0].endswith(": 1")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no label"),
        (float("nan"), "no label"),
        ("", "the label is empty"),
        (" \u3000", "the label is empty"),
        (0.5, "the label is a number with a fraction; expected a string, an integer or a boolean"),
        (["a"], "the label is a list; set task.multi_label = true for such rows"),
        ({"a": 1}, "the label is of type dict; expected a string, an integer or a boolean"),
        (Decimal(1), "the label is of type Decimal; expected a string, an integer or a boolean"),
    ],
)
def test_what_is_no_label_is_a_missing_label_with_its_reason(value: object, reason: str) -> None:
    parsed = parse(["a", value])
    assert [row.place for row in parsed.examples] == ["rows.csv:2"]
    assert [(entry.place, entry.check, entry.reason) for entry in parsed.unusable] == [
        ("rows.csv:3", "missing_label", reason)
    ]


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (["b", "a", "b"], ("a", "b")),
        ([2, "x"], ("2", "x")),
        ([], ()),
        ("b| a |b", ("a", "b")),
        ("one", ("one",)),
        ("", ()),
        (7, ("7",)),
    ],
)
def test_multi_label_rows_hold_any_number_of_labels(value: object, labels: tuple[str, ...]) -> None:
    parsed = parse([value], multi=True)
    assert parsed.examples[0].labels == labels
    assert not parsed.unusable


def test_an_absent_value_is_a_missing_label_in_a_multi_label_set_too() -> None:
    assert reasons(parse([None, [None]], multi=True)) == ["no label", "no label"]


@pytest.mark.parametrize("text", [None, 5, 2.5, True, ["a"], "", "  \n", "\u200b\ufeff", "\0"])
def test_a_text_without_a_visible_character_or_of_another_type_is_empty(text: object) -> None:
    parsed = parse(["a"], texts=[text])
    assert [entry.check for entry in parsed.unusable] == ["empty_text"]
    assert not parsed.examples


def test_a_row_of_a_pair_needs_both_texts() -> None:
    parsed = parse(["a", "a", "a"], pair=["second", "", None])
    assert [(row.text, row.pair) for row in parsed.examples] == [("text 0", "second")]
    assert reasons(parsed) == ["the pair is empty", "no pair"]


def test_a_row_with_neither_text_nor_label_has_two_reasons() -> None:
    assert [entry.check for entry in parse([None], texts=[""]).unusable] == ["empty_text", "missing_label"]


def test_texts_are_kept_as_they_are() -> None:
    assert parse(["a"], texts=["  ＡＢ\tc "]).examples[0].text == "  ＡＢ\tc "


def test_rows_without_an_id_are_named_by_their_line_and_repeated_ids_are_counted() -> None:
    parsed = parse(["a"] * 5, id=["x", None, 7, "x", ""])
    assert [row.id for row in parsed.examples] == ["x", "rows.csv:3", "7", "x", "rows.csv:6"]
    assert parsed.repeated_ids == 1
    assert parsed.notes == ("rows.csv: rows without an id, named by their line: 2",)


def test_texts_count_as_equal_by_nfkc_case_and_white_space() -> None:
    assert text_key(" Ａb\u3000C\n") == text_key("aBc") != text_key("abd")
    assert text_key("STRASSE") == text_key("straße")
    assert text_key("a", "bc") != text_key("ab", "c")
