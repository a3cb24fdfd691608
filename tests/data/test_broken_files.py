"""Broken data files: each ends in one clear sentence, or in a counted warning."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from peftlab.data.labelled import load_labelled
from peftlab.data.rows import Splits
from peftlab.errors import DataError
from peftlab.recipe.records import Data

GOOD_CSV = "text,label\n" + "".join(f"text number {i},{'ab'[i % 2]}\n" for i in range(20))
GOOD_JSONL = "".join(json.dumps({"text": f"text number {i}", "label": "ab"[i % 2]}) + "\n" for i in range(20))
HAN_CSV = "text,label\n" + "".join(f"我们的第{i}个产品,{'ab'[i % 2]}\n" for i in range(20))


def load(folder: Path, name: str, content: bytes | str) -> Splits:
    """Load one training file, from which all three splits are made."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_labelled(
        Data(train=name),
        recipe_path=folder / "recipe.toml",
        seed=0,
        multi_label=False,
        max_length=None,
        report_path=folder / "data_report.json",
    )


STOPPED = {
    "empty": ("train.csv", b"", "train.csv: is empty (0 bytes)"),
    "blank lines only": ("train.csv", b"\n\n", "train.csv: holds blank lines only"),
    "header only": ("train.csv", b"text,label\n", "train.csv: has no rows (a header at most)"),
    "empty array": ("train.json", b"[]", "train.json: has no rows"),
    "semicolons in .csv": ("train.csv", GOOD_CSV.replace(",", ";"), "looks separated by semicolons, so save it with"),
    "tabs in .csv": ("train.csv", GOOD_CSV.replace(",", "\t"), "looks separated by tabs, so name it .tsv"),
    "commas in .tsv": ("train.tsv", GOOD_CSV, "looks separated by commas, so name it .csv"),
    "NUL bytes in JSON": (
        "train.jsonl",
        GOOD_JSONL.replace("number 3", "num\0ber"),
        "train.jsonl:4: NUL byte at column",
    ),
    "bad UTF-8": ("train.csv", GOOD_CSV.encode() + b"caf\xe9 3,a\n", "train.csv:22: byte 0xe9 at offset 344"),
    "bad UTF-8 in JSON": (
        "train.jsonl",
        b'{"text": "\xff\xff", "label": "a"}\n',
        "train.jsonl:1: byte 0xff at offset 10",
    ),
    "GB18030": ("train.csv", HAN_CSV.encode("gb18030"), "it may be GB18030: iconv -f GB18030 -t UTF-8 train.csv"),
    "UTF-16 with a mark": ("train.csv", GOOD_CSV.encode("utf-16"), "is encoded as UTF-16; expected UTF-8"),
    "UTF-16 without a mark": ("train.csv", GOOD_CSV.encode("utf-16-le"), "is encoded as UTF-16-LE; expected UTF-8"),
    "big-endian UTF-16 of Han": ("train.csv", HAN_CSV.encode("utf-16-be"), "is encoded as UTF-16-BE; expected UTF-8"),
    "UTF-32 with a mark": ("train.csv", GOOD_CSV.encode("utf-32"), "is encoded as UTF-32; expected UTF-8"),
    "UTF-32 without a mark": ("train.csv", GOOD_CSV.encode("utf-32-be"), "is encoded as UTF-32-BE; expected UTF-8"),
    "missing column": (
        "train.csv",
        GOOD_CSV.replace("text,", "txt,"),
        'no column "text" (data.text; did you mean "txt"?)',
    ),
    "missing key": ("train.jsonl", GOOD_JSONL.replace('"label"', '"class"'), 'the columns are "text", "class"'),
    "labels missing": ("train.csv", GOOD_CSV + "x,\ny,\n", "missing_label: 2 rows have no usable label"),
    "one class": (
        "train.csv",
        GOOD_CSV.replace(",b", ",a"),
        'all 12 training rows have the label "a"; one class cannot',
    ),
    "0-byte gzip": ("train.csv.gz", b"", "train.csv.gz: is empty (0 bytes)"),
    "gzip of nothing": ("train.csv.gz", gzip.compress(b""), "is empty (0 bytes after unpacking)"),
    "truncated gzip": (
        "train.csv.gz",
        gzip.compress(GOOD_CSV.encode())[:-20],
        "the gzip file is cut off before its end",
    ),
    "broken gzip": ("train.csv.gz", b"\x1f\x8b\x08" + b"\x00" * 7 + b"\xff" * 40, "the gzip file cannot be unpacked"),
    "gzip in name only": ("train.csv.gz", GOOD_CSV, "it is not compressed, so take .gz off its name"),
    "gzip without .gz": ("train.csv", gzip.compress(GOOD_CSV.encode()), "this is a gzip file; add .gz to its name"),
    "a workbook": ("train.csv", b"PK\x03\x04" + b"\x00" * 50, "an Excel workbook; save the table as UTF-8 CSV"),
    "no Parquet": ("train.parquet", b"PAR1 and no more", "train.parquet: cannot be read as Parquet"),
    "gzipped Parquet": ("train.parquet.gz", b"x", "gzipped Parquet is not read"),
    "unknown ending": ("train.txt", GOOD_CSV, "train.txt: cannot tell its format; expected a name that ends in .csv"),
    "a field too many": (
        "train.csv",
        GOOD_CSV + "one, two,a\n",
        "train.csv:22: 3 fields, but the header has 2; put a field",
    ),
    "a field too few": ("train.csv", GOOD_CSV + "one\n", "train.csv:22: 1 field, but the header has 2; add what is"),
    "an open quote": (
        "train.csv",
        GOOD_CSV + '"one,a\ntwo,b\n',
        "train.csv:22: a quote opens in this row and is never",
    ),
    "a quote inside quotes": ("train.csv", GOOD_CSV + '"a "b" c",a\n', "train.csv:22: broken quoting"),
    "invalid JSON": ("train.jsonl", GOOD_JSONL + '{"text": x}\n', "train.jsonl:21: invalid JSON at column 10"),
    "half a last line": ("train.jsonl", GOOD_JSONL[:-9], "train.jsonl:20: invalid JSON at column"),
    "no object": ("train.jsonl", GOOD_JSONL + '["x", "a"]\n', "train.jsonl:21: a JSON array; expected an object"),
    "an array in .jsonl": (
        "train.jsonl",
        "[\n",
        "a JSON array begins here; expected one object a line, so name the file .json",
    ),
    "a broken array": ("train.json", '[{"text": "a"},\n {"text" "b"}]', "train.json:2: invalid JSON at column 10"),
    "an open array": ("train.json", '[{"text": "a"}\n', "train.json:2: expected a comma or the end of the array"),
    "text behind an array": ("train.json", '[{"text": "a"}]\n{}', "text stands behind the end of the array"),
    "half a character": ("train.jsonl", '{"text": "\\ud83d", "label": "a"}\n', "train.jsonl:1: holds half a character"),
    "deep nesting": ("train.jsonl", "[" * 100_000 + "\n", "train.jsonl:1: not readable as JSON"),
    "a doubled column": ("train.csv", "text,text,label\na,b,c\n", 'the header names "text" more than once'),
    "empty texts": (
        "train.jsonl",
        GOOD_JSONL + '{"text": 5, "label": "a"}\n',
        "the text is of type int, not a string: 1",
    ),
    "white text": ("train.csv", GOOD_CSV + "\u3000\u200b,a\n", "empty_text: 1 row has an empty or non-string text"),
}


@pytest.mark.parametrize("case", STOPPED)
def test_a_broken_file_stops_with_one_sentence_that_names_place_and_remedy(case: str, tmp_path: Path) -> None:
    name, content, expected = STOPPED[case]
    with pytest.raises(DataError) as caught:
        load(tmp_path, name, content)
    message = str(caught.value)
    assert expected in message
    assert name in message or "one_class" in message
    assert "\n" not in message
    assert len(message) < 900


def test_nul_bytes_in_a_csv_are_a_counted_warning_and_the_rows_are_kept(tmp_path: Path) -> None:
    splits = load(tmp_path, "train.csv", GOOD_CSV.replace("number 3", "num\0ber 3"))
    (warning,) = [line for line in splits.report["warnings"] if line.startswith("broken_encoding")]
    assert "1 row has" in warning
    assert "train.csv:5" in warning
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 20


def test_nul_bytes_at_like_places_of_a_small_file_are_not_taken_for_utf_16(tmp_path: Path) -> None:
    splits = load(tmp_path, "train.csv", "text,label\n" + "a\0b\0c,a\na\0d\0eee,b\n" * 3 + "f,a\ng,b\nh,a\ni,b\n")
    assert any("broken_encoding: " in line for line in splits.report["warnings"])


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl"])
def test_a_line_of_a_megabyte_is_read_whole_with_a_counted_warning(name: str, tmp_path: Path) -> None:
    long = "word " * 210_000
    good, more = (
        (GOOD_CSV, f"{long},a\n") if name == "train.csv" else (GOOD_JSONL, f'{{"text":"{long}","label":"a"}}\n')
    )
    splits = load(tmp_path, name, good + more)
    (warning,) = [line for line in splits.report["warnings"] if line.startswith("long_rows")]
    assert "1 row has more than 100,000 characters" in warning
    assert f"{name}:{22 if name == 'train.csv' else 21}" in warning
    assert long in [*splits.train.texts, *splits.validation.texts, *splits.test.texts]


def test_many_bad_rows_are_counted_and_the_first_ten_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, "train.jsonl", GOOD_JSONL + "oops\n" * 1234)
    lines = str(caught.value).splitlines()
    assert "1,234 rows cannot be read; the first 10 are" in lines[0]
    assert [line.split(":")[1] for line in lines[1:]] == [str(number) for number in range(21, 31)]


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").mkdir()
    with pytest.raises(DataError, match=r"rows\.csv: is a folder; expected a data file"):
        load_labelled(
            Data(train="rows.csv"), recipe_path=tmp_path / "r.toml", seed=0, multi_label=False, max_length=None
        )


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def refuse(path: Path, mode: str = "r", **options: Any) -> Any:
        if "r" in mode:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"train\.csv: may not be read by this user; change its permissions"):
        load(tmp_path, "train.csv", GOOD_CSV)


def test_a_good_file_passes_so_that_the_cases_above_fail_for_their_own_fault(tmp_path: Path) -> None:
    for name, content in (("train.csv", GOOD_CSV), ("train.jsonl", GOOD_JSONL), ("han.csv", HAN_CSV)):
        splits = load(tmp_path, name, content)
        assert [len(splits.train), len(splits.validation), len(splits.test)] == [12, 4, 4]
        assert splits.report["warnings"] == []
