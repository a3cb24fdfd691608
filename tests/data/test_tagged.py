"""Sentences from CoNLL and JSONL files; each broken file gives one sentence that names the row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from peftlab.data.entities.generate import generate_sentences
from peftlab.data.tag_schemes import misplaced
from peftlab.data.tagged import TaggedSplits, load_tagged
from peftlab.errors import DataError
from peftlab.recipe.records import Data, DataChecks

Rows = Sequence[tuple[str, str]]
GOOD: Rows = [("Anna went home", "B-PER O O"), ("to New York", "O B-LOC I-LOC"), ("nobody came", "O O")]


def write(folder: Path, name: str, rows: Rows) -> str:
    lines = [json.dumps({"tokens": tokens.split(), "tags": tags.split()}) + "\n" for tokens, tags in rows]
    (folder / name).write_text("".join(lines), encoding="utf-8")
    return str(folder / name)


def load(folder: Path, files: Mapping[str, str], **settings: object) -> TaggedSplits:
    data = Data.model_validate({**files, **settings.pop("data", {})})  # type: ignore[dict-item]
    options = {"scheme": "auto", "characters": False, **settings}
    return load_tagged(data, recipe_path=folder / "recipe.toml", seed=0, **options)  # type: ignore[arg-type]


def files(folder: Path, **changed: Rows) -> dict[str, str]:
    return {name: write(folder, f"{name}.jsonl", changed.get(name, GOOD)) for name in ("train", "validation", "test")}


CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP I-ORG
rejects VBZ B-VP O

Peter NNP B-NP I-PER
Blackburn NNP I-NP I-PER
Anna NNP B-NP B-PER

-DOCSTART- -X- -X- O

late JJ B-AP O
"""


@pytest.mark.parametrize(("separator", "ending"), [(" ", "\n"), ("\t", "\r\n")])
def test_conll_columns_are_read_and_iob1_is_converted_and_said(tmp_path: Path, separator: str, ending: str) -> None:
    path = tmp_path / "eng.train"
    path.write_bytes(CONLL.replace(" ", separator).replace("\n", ending).encode())
    test = tmp_path / "eng.testb"
    test.write_text("EU I-ORG\n\n", encoding="utf-8")
    splits = load(tmp_path, {"train": str(path), "validation": str(test), "test": str(test)})
    assert list(splits.train.tokens) == [("EU", "rejects"), ("Peter", "Blackburn", "Anna"), ("late",)]
    assert list(splits.train.tags) == [("B-ORG", "O"), ("B-PER", "I-PER", "B-PER"), ("O",)]
    assert list(splits.train.ids) == ["eng.train:3", "eng.train:6", "eng.train:12"]
    assert splits.tag_names == ("O", "B-ORG", "I-ORG", "B-PER", "I-PER")
    assert "tags converted from IOB1 to IOB2" in splits.report["notes"]
    assert "eng.train: lines -DOCSTART- left out: 2" in splits.report["notes"]
    assert "eng.train: 4 columns; the first holds tokens, the last tags" in splits.report["notes"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"train": [*GOOD, ("a b", "O")]}, r"train\.jsonl:4: 2 tokens and 1 tags; every token needs one tag"),
        (
            {"train": [*GOOD, ("met Anna", "O I-PER")]},
            r'train\.jsonl:4: token 2, "Anna": I-PER after O; in IOB2 an entity begins with B-PER; correct the tags, '
            r"or set task\.scheme, which is auto and was found to be IOB2",
        ),
        ({"test": [*GOOD, ("met Anna", "O I-PER")]}, r'test\.jsonl:4: token 2, "Anna": I-PER after O'),
        (
            {"test": [("IBM", "B-ORG"), *GOOD]},
            r'unseen_label: .*no training row has: "ORG" in test \(1\) \(test\.jsonl:1\)',
        ),
        ({"train": [*GOOD, ("", "")]}, r"empty_text: .*a sentence without tokens.*\(train\.jsonl:4\)"),
        ({"test": [("Anna", "PERSON")]}, r'test\.jsonl:1: token 1, "Anna": "PERSON" is no tag'),
        ({"train": [("Anna", "O")]}, r"one_class: no training row has a label"),
    ],
    ids=["lengths", "I after O", "I after O in test", "unknown type in test", "empty sentence", "no tag", "no entity"],
)
def test_a_broken_row_is_named_in_one_sentence(tmp_path: Path, changed: dict[str, Rows], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(tmp_path, files(tmp_path, **changed))


def test_values_that_are_no_tokens_are_named(tmp_path: Path) -> None:
    names = files(tmp_path)
    for tokens, tags, reason in (
        ("Anna", ["O"], "tokens is of type str; expected a list of strings"),
        (["Anna"], [3], r"tags\[0\] is of type int; expected a string"),
        (["Anna", " "], ["O", "O"], r"tokens\[1\] is empty"),
        (["Anna"], None, "tags is absent"),
    ):
        (tmp_path / "test.jsonl").write_text(json.dumps({"tokens": tokens, "tags": tags}) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=rf"test\.jsonl:1: {reason}"):
            load(tmp_path, names)
    with pytest.raises(DataError, match=r'train\.jsonl:1: tokens\[0\] is "Anna"; with task\.units = "characters"'):
        load(tmp_path, files(tmp_path), characters=True)


def test_broken_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.conll"
    for text, reason in (
        ("Anna\n", r"bad\.conll:1: found 1 column, expected 2 to 4"),
        ("Anna B-PER\n\nhome NN O\n", r"bad\.conll:3: found 3 columns, where the lines before have 2"),
        ("\n\n-DOCSTART- O\n", "has no tokens"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=reason):
            load(tmp_path, {"train": str(path)})


def test_what_a_check_lets_pass_is_left_out_or_kept_and_counted(tmp_path: Path) -> None:
    checks = DataChecks(empty_text="warn", unseen_label="warn").model_dump()
    names = files(tmp_path, train=[*GOOD, ("", "")], test=[("IBM", "B-ORG")])
    splits = load(tmp_path, names, data={"checks": checks})
    assert len(splits.train) == 3
    assert splits.report["left_out"]["train"]["places"] == {"train.jsonl:4": "a sentence without tokens"}
    assert "B-ORG" in splits.tag_names
    assert any("unseen_label" in warning for warning in splits.report["warnings"])


def test_files_of_one_name_do_not_get_into_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    train = write(tmp_path / "a", "data.jsonl", GOOD)
    test = write(tmp_path / "b", "data.jsonl", [("in York", "O B-LOC")])
    splits = load(tmp_path, {"train": train, "validation": test, "test": test})
    assert splits.train.tokens[0] == ("Anna", "went", "home")
    assert list(splits.test.tokens) == [("in", "York")]


def test_splits_that_are_not_given_come_off_train_the_same_way_each_time(tmp_path: Path) -> None:
    rows = [(f"Anna {number} left", "B-PER O O") for number in range(30)]
    path = write(tmp_path, "all.jsonl", rows)
    first, second = (load(tmp_path, {"train": path}) for _ in range(2))
    assert [len(first.train), len(first.validation), len(first.test)] == [18, 6, 6]
    assert first.fingerprint == second.fingerprint
    other = load(tmp_path, {"train": path}, data={"train_rows": 9})
    assert len(other.train) == 9
    assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_built_in_sentences_are_valid_and_the_same_each_time(language: str) -> None:
    made = generate_sentences(language)  # type: ignore[arg-type]
    assert made == generate_sentences(language)  # type: ignore[arg-type]
    assert len({one.tokens for one in made}) == len(made), "no sentence stands in two splits"
    assert all(len(one.tokens) == len(one.tags) and misplaced(one.tags, "IOB2") is None for one in made)
    types = {split: {tag[2:] for one in made if one.split == split for tag in one.tags} for split in ("train", "test")}
    assert types["train"] == types["test"] == {"", "PER", "LOC", "ORG"}
    if language == "zh":
        assert all(len(token) == 1 for one in made for token in one.tokens)
