"""Rows one by one: the same as of the whole file, in constant memory, with the same sentences for broken files."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peftlab.data.readers import Role, read_table
from peftlab.data.stream import stream_rows
from peftlab.errors import DataError

WANTED: dict[Role, str] = {"text": "text"}
TEXTS = ["plain", 'with "quotes"', "with, comma", "two\nlines", "über 包裹", "u\u2028v"]


def write(folder: Path, name: str) -> Path:
    """Write TEXTS in the form that the name says."""
    import csv
    import io

    path = folder / name
    plain = name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        pq.write_table(pa.table({"id": list(range(len(TEXTS))), "text": TEXTS}), path)
        return path
    if plain.endswith(("csv", "tsv")):
        made = io.StringIO()
        rows = csv.writer(made, delimiter="," if plain.endswith("csv") else "\t", lineterminator="\n")
        rows.writerows([["id", "text"], *([str(n), text] for n, text in enumerate(TEXTS))])
        text = made.getvalue()
    elif plain.endswith(".json"):
        text = json.dumps([{"id": n, "text": text} for n, text in enumerate(TEXTS)], ensure_ascii=False)
    else:
        lines = [json.dumps({"id": n, "text": text}, ensure_ascii=False) for n, text in enumerate(TEXTS)]
        text = "\n\n".join(lines)
    content = ("\ufeff" + text).encode("utf-8")
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize(
    "name", ["a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.jsonl.gz", "a.ndjson", "a.json", "a.parquet"]
)
def test_rows_and_lines_are_those_of_the_whole_file(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name)
    table = read_table(path, WANTED)
    streamed = list(stream_rows(path, WANTED))

    assert [values["text"] for _, values in streamed] == list(table.columns["text"]) == TEXTS
    assert [line for line, _ in streamed] == list(table.lines)


def test_quotes_in_tsv_are_plain_characters_by_the_same_rule(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('id\ttext\n1\t"open\n2\tshut"\n', encoding="utf-8")

    assert [values["text"] for _, values in stream_rows(path, WANTED)] == list(read_table(path, WANTED).columns["text"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"id,body\n1,x\n"),
        ("a.csv", b"id,text\n1,x,y\n"),
        ("a.csv", b'id,text\n1,"x\n'),
        ("a.csv", "id,text\n1,包裹\n".encode("gb18030")),
        ("a.csv", "id,text\n1,x\n".encode("utf-16")),
        ("a.csv", b""),
        ("a.csv.gz", gzip.compress(b"id,text\n1,x\n" * 99, mtime=0)[:-9]),
        ("a.csv.gz", b"id,text\n"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n'),
        ("a.jsonl", b'{"text": "x"}\n[1]\n'),
        ("a.jsonl", b'{"text": "\\ud83d"}\n'),
        ("a.parquet", b"PAR1 no"),
        ("a.xlsx", b"PK"),
    ],
)
def test_a_broken_file_gets_the_sentence_of_read_table(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as whole:
        read_table(path, WANTED)
    with pytest.raises(DataError) as streamed:
        list(stream_rows(path, WANTED))

    assert str(streamed.value) == str(whole.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_memory_does_not_grow_with_the_file(name: str, tmp_path: Path) -> None:
    """A file of 9 MB passes through with less than one in memory."""
    path = tmp_path / name
    row = '{"text": "' + "x" * 90 + '"}' if name == "a.jsonl" else "x" * 95
    path.write_text(("" if name == "a.jsonl" else "text\n") + f"{row}\n" * 90_000, encoding="utf-8")
    tracemalloc.start()
    rows = sum(1 for _ in stream_rows(path, WANTED))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert rows == 90_000
    assert path.stat().st_size > 8e6
    assert peak < 1e6
