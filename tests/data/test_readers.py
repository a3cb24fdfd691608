"""Every format gives the same rows, each with the line on which it starts."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftlab.data.readers import Role, Table, read_table
from peftlab.errors import DataError

ROWS = [
    ("plain", "a"),
    ('with "quotes", commas\nand lines', "b"),
    ("  white  ", "a"),
    ("007", "1"),
    ("中文\u2028字", "b"),
]
WANTED: dict[Role, str] = {"text": "text", "label": "label"}


def delimited(delimiter: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows([("text", "label"), *ROWS])
    return buffer.getvalue()


def json_lines() -> str:
    return "".join(json.dumps({"text": t, "label": y, "more": [1]}, ensure_ascii=False) + "\n" for t, y in ROWS)


def content_of(ending: str) -> str:
    if ending in (".csv", ".tsv"):
        return delimited("," if ending == ".csv" else "\t")
    return json_lines()


def read(path: Path, content: str | bytes, wanted: dict[Role, str] | None = None) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, wanted or WANTED)


def pairs(table: Table) -> list[tuple[object, object]]:
    return list(zip(table.columns["text"], table.columns["label"], strict=True))


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".CSV"])
def test_every_text_format_gives_the_same_rows(ending: str, gz: str, tmp_path: Path) -> None:
    content = content_of(ending.lower()).encode()
    stored = gzip.compress(content) if gz else content
    table = read(tmp_path / f"rows{ending}{gz}", stored)
    assert pairs(table) == ROWS
    assert table.sha256 == hashlib.sha256(stored).hexdigest()


def test_a_byte_order_mark_of_utf_8_is_accepted(tmp_path: Path) -> None:
    assert pairs(read(tmp_path / "rows.csv", b"\xef\xbb\xbf" + delimited(",").encode())) == ROWS


def test_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    assert pairs(read(tmp_path / "rows.csv", "text,label\r\none,a\r\ntwo,b\r\n")) == [("one", "a"), ("two", "b")]
    assert pairs(read(tmp_path / "rows.jsonl", '{"text":"one","label":"a"}\r\n')) == [("one", "a")]


def test_a_quoted_row_over_several_lines_has_the_line_where_it_starts(tmp_path: Path) -> None:
    table = read(tmp_path / "rows.csv", 'text,label\none,a\n"two\nlines",b\nthree,a\n')
    assert list(table.lines) == [2, 3, 5]
    assert table.notes == ("rows.csv: 1 quoted row spans several lines, the first from line 3",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", "text,label\n\none,a\n\ntwo,b\n"),
        ("rows.jsonl", '{"text":"one","label":"a"}\n\n  \n{"text":"two","label":"b"}\n'),
    ],
)
def test_blank_lines_are_counted_and_keep_their_place_in_the_line_numbers(
    name: str, content: str, tmp_path: Path
) -> None:
    table = read(tmp_path / name, content)
    assert pairs(table) == [("one", "a"), ("two", "b")]
    assert list(table.lines) == ([3, 5] if name == "rows.csv" else [1, 4])
    assert table.notes == (f"{name}: 2 blank lines were passed over",)


def test_a_json_array_keeps_the_line_of_each_object(tmp_path: Path) -> None:
    text = (
        '[\n  {"text": "one", "label": "a"},\n\n  {"text": "two",\n   "label": "b"},\n{"text":"three","label":1}\n]\n'
    )
    table = read(tmp_path / "rows.json", text)
    assert list(table.lines) == [2, 4, 6]
    assert table.columns["label"] == ["a", "b", 1]


def test_a_key_that_some_rows_lack_is_none_there(tmp_path: Path) -> None:
    table = read(tmp_path / "rows.jsonl", '{"text":"one","label":"a"}\n{"text":"two"}\n')
    assert table.columns["label"] == ["a", None]


def test_parquet_rows_are_numbered_from_one(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS], "n": list(range(5))}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    table = read_table(tmp_path / "rows.parquet", WANTED)
    assert pairs(table) == ROWS
    assert list(table.lines) == [1, 2, 3, 4, 5]
    with pytest.raises(DataError, match=r'no column "txt" \(data.text; did you mean "text"\?\)'):
        read_table(tmp_path / "rows.parquet", {"text": "txt", "label": "label"})


def test_all_missing_columns_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / "rows.csv", "sentence,topic\none,a\n", {"text": "text", "label": "topics"})
    assert str(caught.value).endswith(
        'rows.csv:1: no column "text" (data.text), no column "topics" (data.label; did you mean "topic"?); '
        'the columns are "sentence", "topic", so set data.text and data.label to one of them'
    )


def test_tsv_without_quoting_keeps_its_quotes_and_its_rows(tmp_path: Path) -> None:
    table = read(tmp_path / "rows.tsv", 'text\tlabel\n"bold" she said\ta\n"open\tb\nclosed"\ta\n')
    assert pairs(table) == [('"bold" she said', "a"), ('"open', "b"), ('closed"', "a")]
    assert 'quotes (") were read as plain characters' in table.notes[0]


def test_tsv_with_quoted_tabs_is_read_as_quoted(tmp_path: Path) -> None:
    table = read(tmp_path / "rows.tsv", 'text\tlabel\n"one\ttab"\ta\n"say ""hi"""\tb\n')
    assert pairs(table) == [("one\ttab", "a"), ('say "hi"', "b")]


def test_reading_a_long_field_leaves_the_limit_of_the_csv_module_alone(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    read(tmp_path / "rows.csv", f"text,label\n{'x' * 300_000},a\n")
    assert csv.field_size_limit() == before


# Surrogates are no text; a lone carriage return is a line end to every CSV reader.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_whatever_was_written_is_read_back_with_ascending_lines(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("text", "label"), *rows])
    lines = "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows)
    for table in (read(folder / "rows.csv", buffer.getvalue()), read(folder / "rows.jsonl", lines)):
        assert pairs(table) == rows
        assert list(table.lines) == sorted(set(table.lines))
