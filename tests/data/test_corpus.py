"""Unlabelled text from plain, packed and JSON files, one passage at a time."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest

from peftlab.data.corpus import find_text, passages
from peftlab.errors import DataError
from peftlab.recipe.pretraining import Corpus

LINES = ["第一行", "the second line", "第三行"]
PLAIN = "\n".join(["", f"  {LINES[0]}", LINES[1], "   ", LINES[2], ""]).encode()


def read(folder: Path, *files: str, text: str = "text") -> list[str]:
    """Return the passages of `files` beside a recipe in `folder`."""
    return list(passages(find_text(Corpus(files=files, text=text), recipe_path=folder / "recipe.toml")))


def test_plain_gzip_xz_and_json_give_the_same_passages(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + PLAIN)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(PLAIN))
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(PLAIN))
    rows = "".join(json.dumps({"body": line}, ensure_ascii=False) + "\n" for line in LINES)
    (tmp_path / "a.jsonl").write_text(rows + "\n", encoding="utf-8")

    for name in ("a.txt", "a.txt.gz", "a.txt.xz"):
        assert read(tmp_path, name) == LINES, name
    assert read(tmp_path, "a.jsonl", text="body") == LINES


def test_a_pattern_takes_all_files_in_order_and_each_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(f"{name}\n", encoding="utf-8")

    assert read(tmp_path, "*.txt", "a.txt") == ["a.txt", "b.txt"]


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n", encoding="utf-8")
    first = find_text(Corpus(files=("a.txt",)), recipe_path=tmp_path / "r.toml").sha256
    path.write_text("two\n", encoding="utf-8")

    assert find_text(Corpus(files=("a.txt",)), recipe_path=tmp_path / "r.toml").sha256 != first


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt.gz", gzip.compress(PLAIN * 50, mtime=0)[:-20], "cannot be unpacked"),
        ("a.txt.xz", lzma.compress(PLAIN)[:40], "cannot be unpacked"),
        ("a.jsonl", b'{"text": 3}\n', 'a.jsonl:1: expected an object with a text under "text"'),
        ("a.jsonl", b"{text}\n", "a.jsonl:1: is not JSON"),
        ("a.csv", b"text\n", "expected a .txt or .jsonl file"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=expected.replace("(", r"\(")):
        read(tmp_path, name)


def test_a_pattern_that_names_nothing_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'corpus.files: "none\*.txt" names no file; looked for'):
        read(tmp_path, "none*.txt")


def test_the_built_in_text_has_training_texts_only() -> None:
    """Validation and test texts stay unseen."""
    found = list(passages(find_text(Corpus(source="builtin:tickets-zh"), recipe_path=Path("r.toml"))))

    assert len(found) == 12_000
