"""Sources and targets from tables and from files of lines; what is said of rows that cannot be used, or are cut."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from task_runs import write_rows

from peftlab.data.paired import PairedSplits, Scoring, Targets, load_paired
from peftlab.data.sentences.generate import generate_sentences
from peftlab.data.text_pairs import Reading
from peftlab.encoders.load import load_tokenizer
from peftlab.errors import DataError
from peftlab.recipe.records import Data


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"source": f"the parcel {number}", "target": f"courier {number}"} for number in range(count)]


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def load(folder: Path, targets: Targets | None = None, **data: Any) -> PairedSplits:
    reading = Reading(recipe_path=folder / "recipe.toml", seed=0, max_length=None)
    return load_paired(Data(**data), reading, targets or Targets(8))


def test_files_of_lines_are_read_side_by_side(tmp_path: Path) -> None:
    """The second one may be gzipped; white space at the end of a line is no mistake."""
    write_lines(tmp_path / "train.de", [f"das Paket {number}" for number in range(10)])
    with gzip.open(tmp_path / "train.en.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"the parcel {number}\r\n" for number in range(10))
    splits = load(tmp_path, train="train.de", pair="en")
    parts = (splits.train, splits.validation, splits.test)
    assert sum(map(len, parts)) == 10
    for part in parts:
        for name, source, target in zip(part.ids, part.sources, part.targets, strict=True):
            number = int(name.removeprefix("train.de:")) - 1
            assert (source, target) == (f"das Paket {number}", f"the parcel {number}")
    assert splits.scoring == Scoring("13a", lowercase=False)


def test_a_named_folder_may_hold_files_of_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    (tmp_path / "news").mkdir()
    for split, rows in (("train", 6), ("validation", 2), ("test", 3)):
        write_lines(tmp_path / "news" / f"{split}.de", [f"{split} Paket {number}" for number in range(rows)])
        write_lines(tmp_path / "news" / f"{split}.en", [f"{split} parcel {number}" for number in range(rows)])
    splits = load(tmp_path, source="news", text="de", pair="en")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [6, 2, 3]
    assert splits.test.targets[2] == "test parcel 2"
    other = load(tmp_path, source="news", text="en", pair="de")
    assert other.test.targets[2] == "test Paket 2"
    assert other.fingerprint != splits.fingerprint


LINES = {
    "fewer targets": ("abc", "ab", r"train.de has 3 lines and train.en 2, so that from train.de:3 on"),
    "fewer sources": ("ab", "abc", r"train.de has 2 lines and train.en 3, so that from train.en:3 on"),
    "no targets": ("abc", None, r"there is no train.en with the targets beside it; name its ending"),
    "empty source": (["a", " ", "c"], "abc", r"the text is empty: 1\) in train \(1\) \(train.de:2\)"),
    "empty target": ("abc", ["a", "b", ""], r"the pair is empty: 1\) in train \(1\) \(train.de:3\)"),
}


@pytest.mark.parametrize("case", LINES)
def test_lines_that_have_no_partner_stop_with_their_number(case: str, tmp_path: Path) -> None:
    sources, targets, sentence = LINES[case]
    write_lines(tmp_path / "train.de", list(sources))
    if targets is not None:
        write_lines(tmp_path / "train.en", list(targets))
    with pytest.raises(DataError, match=sentence):
        load(tmp_path, train="train.de", pair="en")


ROWS = {
    "no target": ({"source": "a"}, r"no pair: 1\) in train \(1\) \(train.jsonl:11\)"),
    "empty source": ({"source": "", "target": "a"}, r"the text is empty: 1\) in train \(1\) \(train.jsonl:11\)"),
    "number": ({"source": "a", "target": 3}, r"the pair is of type int, not a string: 1\).*\(train.jsonl:11\)"),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_without_a_source_or_a_target_stop_with_their_line(case: str, tmp_path: Path) -> None:
    row, sentence = ROWS[case]
    write_rows(tmp_path / "train.jsonl", [*rows_of(10), row])
    with pytest.raises(DataError, match=sentence):
        load(tmp_path, train="train.jsonl")


def test_rows_of_one_source_stay_in_one_split(tmp_path: Path) -> None:
    twice = [{"source": "The  parcel 3", "target": "another one"}]
    write_rows(tmp_path / "train.jsonl", [*rows_of(40), *twice])
    splits = load(tmp_path, train="train.jsonl")
    holding = [
        part.name
        for part in (splits.train, splits.validation, splits.test)
        for source in part.sources
        if source.casefold().split() == ["the", "parcel", "3"]
    ]
    assert len(holding) == 2
    assert len(set(holding)) == 1


def test_texts_that_are_cut_are_counted_and_said(tmp_path: Path, tiny_encoder: Callable[..., Path]) -> None:
    """A source of 2,000 tokens and a target of nine, special tokens included."""
    from peftlab.data.tokens import full_lengths

    tokens = partial(full_lengths, load_tokenizer(tiny_encoder()))
    files = {}
    for split in ("train", "validation", "test"):
        rows = rows_of(4)
        if split == "train":
            rows += [{"source": "parcel " * 2000, "target": "courier"}]
        if split == "test":
            rows += [{"source": "parcel", "target": "courier " * 7}]
        files[split] = str(write_rows(tmp_path / f"{split}.jsonl", rows))
    reading = Reading(tmp_path / "recipe.toml", 0, 16, None, tokens)
    splits = load_paired(Data(**files), reading, Targets(8, tokens))
    cut = [note for note in splits.report["notes"] if "are cut there" in note]
    assert cut == [
        "train: 1 of 5 sources are longer than encoder.max_length = 16 tokens and are cut there (train.jsonl:5)",
        "test: 1 of 5 targets are longer than task.max_target_length = 8 tokens and are cut there (test.jsonl:5)",
    ]


def test_chinese_targets_are_scored_by_character(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"source": f"parcel {n}", "target": f"包裹 {n}"} for n in range(10)])
    assert load(tmp_path, train="train.jsonl").scoring.tokenize == "zh"
    assert load(tmp_path, Targets(8, tokenize="char"), train="train.jsonl").scoring.tokenize == "char"


def test_the_built_in_sentences_are_the_same_each_time_and_stand_there_once() -> None:
    pairs = generate_sentences()
    assert pairs == generate_sentences()
    assert len({one.source for one in pairs}) == len(pairs) == 1950
    assert {one.source[-1] for one in pairs} == {one.target[-1] for one in pairs} == {"."}
    # "a" before a vowel, or an ending of another gender, would be a mistake of the generator.
    words = [one.target.lower().split() for one in pairs]
    assert not [pair for row in words for pair in pairwise(row) if pair[0] == "a" and pair[1][0] in "aeiou"]
    assert any(one.source.split()[0] in ("Heute", "Am", "Im", "Nach", "Jeden") for one in pairs)


def test_an_unknown_built_in_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its sets are builtin:sentences-de-en"):
        load(tmp_path, source="builtin:sentences-fr-en")
