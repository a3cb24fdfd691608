"""Files, named sets, hub sets and built-in sets: which is used, and what is said where none is found."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from peftlab.data.sources import Source, find_source
from peftlab.errors import DataError
from peftlab.recipe.records import Data


def lines(word: str, rows: int = 4) -> str:
    return "".join(json.dumps({"text": f"{word} {i}", "label": "ab"[i % 2]}) + "\n" for i in range(rows))


def find(folder: Path, **settings: Any) -> Source:
    return find_source(Data(**settings), recipe_path=folder / "recipe.toml")


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PEFTLAB_DATA folder with the set `pets`: train gzipped, and test."""
    folder = tmp_path / "sets" / "pets"
    folder.mkdir(parents=True)
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(lines("train").encode()))
    (folder / "test.jsonl").write_text(lines("test", 2))
    monkeypatch.setenv("PEFTLAB_DATA", str(folder.parent))
    return folder


def test_a_file_is_looked_for_beside_the_recipe_then_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("recipes", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "train.jsonl").write_text(lines("work"))
    assert find(tmp_path / "recipes", train="train.jsonl").tables["train"].columns["text"][0] == "work 0"
    (tmp_path / "recipes" / "train.jsonl").write_text(lines("recipes"))
    assert find(tmp_path / "recipes", train="train.jsonl").tables["train"].columns["text"][0] == "recipes 0"


def test_a_file_that_is_nowhere_names_both_places_and_a_near_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "train.jsonl").write_text(lines("x"))
    with pytest.raises(DataError) as caught:
        find(tmp_path, train="trian.jsonl")
    assert str(caught.value) == (
        f'data.train: no file "trian.jsonl"; looked for as {tmp_path}/trian.jsonl and as {tmp_path}/work/trian.jsonl; '
        f"did you mean {tmp_path}/train.jsonl?"
    )


def test_a_name_that_the_system_refuses_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.csv: cannot be looked at \(File name too long\)"):
        find(tmp_path, train="x" * 300 + ".csv")


def test_files_win_over_a_source_and_that_is_noted(tmp_path: Path, named: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(lines("mine"))
    source = find(tmp_path, train="mine.jsonl", source="pets", hub="someone/pets")
    assert list(source.tables) == ["train"]
    assert source.description["used"] == source.description["requested"] == "files"
    assert source.notes == ('data.source = "pets" and data.hub = "someone/pets" was not used, as files are given',)


def test_a_test_file_without_a_train_file_is_refused(tmp_path: Path, named: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(lines("mine"))
    with pytest.raises(DataError, match=r"data\.train: is not given, but data\.test is"):
        find(tmp_path, test="mine.jsonl", source="pets")


def test_a_recipe_that_names_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data: names no rows; expected train"):
        find(tmp_path)


def test_a_named_set_is_read_from_its_folder_with_the_hash_of_each_file(tmp_path: Path, named: Path) -> None:
    source = find(tmp_path, source="pets", hub="someone/pets")
    assert source.description["requested"] == "pets"
    assert source.description["used"] == "local"
    assert [(entry["split"], entry["rows"]) for entry in source.description["files"]] == [("train", 4), ("test", 2)]
    assert [Path(entry["path"]).name for entry in source.description["files"]] == ["train.jsonl.gz", "test.jsonl"]
    assert all(len(entry["sha256"]) == 64 for entry in source.description["files"])
    assert f"read from the folder {named}" in source.notes[0]


def test_of_a_plain_and_a_gzipped_file_the_plain_one_is_read_and_that_is_noted(tmp_path: Path, named: Path) -> None:
    (named / "train.jsonl").write_text(lines("plain"))
    source = find(tmp_path, source="pets")
    assert source.tables["train"].columns["text"][0] == "plain 0"
    assert "train.jsonl.gz was not read, as train.jsonl lies beside it" in source.notes


def test_a_named_folder_without_training_rows_is_refused(tmp_path: Path, named: Path) -> None:
    (named / "train.jsonl.gz").unlink()
    with pytest.raises(DataError, match=r"pets of \"pets\" holds no train\.jsonl or train\.jsonl\.gz"):
        find(tmp_path, source="pets")


def test_an_unknown_set_says_where_it_was_looked_for_and_what_is_near(tmp_path: Path, named: Path) -> None:
    with pytest.raises(DataError) as caught:
        find(tmp_path, source="pet")
    assert str(named.parent / "pet") in str(caught.value)
    assert 'did you mean "pets"?' in str(caught.value)


def test_without_the_variable_the_error_says_how_to_set_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"PEFTLAB_DATA is not set .*; set PEFTLAB_DATA to the folder that holds pets/"):
        find(tmp_path, source="pets")


@dataclass(frozen=True)
class FakeTicket:
    """What the generator gives."""

    id: str
    text: str
    label: str
    true_label: str
    split: str
    ambiguous: bool


def test_a_built_in_set_leaves_the_true_labels_behind_and_states_its_ceiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftlab.data.tickets import generate

    made = [
        FakeTicket(f"{split}-{i}", f"{split} text {i}", "seen", "hidden", split, False)
        for split in ("train", "validation", "test")
        for i in range(3)
    ]
    monkeypatch.setattr(generate, "generate_tickets", lambda language: made if language == "zh" else [])
    monkeypatch.setattr(generate, "ceiling", {"zh": 0.98}.get)
    source = find(tmp_path, source="builtin:tickets-zh")
    assert "hidden" not in repr(source)
    assert source.tables["test"].columns["id"] == ["test-0", "test-1", "test-2"]
    assert source.description["used"] == "builtin"
    assert source.description["synthetic"] is True
    assert source.description["language"] == "zh"
    assert source.description["ceiling"] == 0.98
    assert "synthetic" in source.notes[0]
    assert "98.0% test accuracy" in source.notes[0]


def test_a_built_in_set_that_does_not_exist_lists_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no built-in set "builtin:mails"; the built-in sets are builtin:tickets-zh, '):
        find(tmp_path, source="builtin:mails")


def hub_set(**splits: dict[str, list[Any]]) -> Any:
    import datasets

    classes = datasets.ClassLabel(names=["cat", "dog"])
    kinds = {"label": classes, "labels": datasets.List(classes), "text": datasets.Value("string")}
    return datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(columns, datasets.Features({key: kinds[key] for key in columns}))
            for name, columns in splits.items()
        }
    )


PETS = {"text": ["purrs", "barks", "?"], "label": [0, 1, -1]}


def serve(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    """Let `datasets.load_dataset` return or raise the answers in turn (the last one for ever); record its calls."""
    import datasets

    calls: list[tuple[Any, ...]] = []
    answers = answer if isinstance(answer, list) else [answer]

    def load_dataset(path: str, name: str | None = None, revision: str | None = None) -> Any:
        calls.append((path, name, revision))
        given = answers[min(len(calls), len(answers)) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_a_hub_set_is_used_where_the_named_folder_is_absent(
    tmp_path: Path, named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = serve(monkeypatch, hub_set(train=PETS, dev=PETS, test=PETS, extra=PETS))
    source = find(tmp_path, source="birds", hub="someone/birds", hub_config="small")
    assert calls == [("someone/birds", "small", None)]
    assert source.description["requested"] == "birds"
    assert source.description["used"] == "hub"
    assert source.description["hub"] == "someone/birds"
    assert list(source.tables) == ["train", "validation", "test"]
    assert source.tables["validation"].columns["label"] == ["cat", "dog", None]
    assert source.tables["validation"].name == "dev"
    assert source.notes == ("birds: read from the hub as someone/birds", "someone/birds: splits not used: extra")


def test_a_hub_set_alone_may_have_lists_of_class_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, hub_set(train={"text": ["a", "b", "c"], "labels": [[1, 0], [], [1]]}))
    source = find(tmp_path, hub="someone/pets", label="labels")
    assert source.tables["train"].columns["label"] == [["dog", "cat"], [], ["dog"]]
    assert source.description["requested"] == "someone/pets"


def test_a_set_with_a_loading_script_is_read_from_the_hubs_parquet_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = RuntimeError("Dataset scripts are no longer supported, but found pets.py")
    calls = serve(monkeypatch, [refused, hub_set(train=PETS)])
    source = find(tmp_path, hub="someone/pets")
    assert [call[2] for call in calls] == [None, "refs/convert/parquet"]
    assert "has a loading script" in source.notes[1]


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), RuntimeError("odd"), ValueError("which one?")])
def test_a_hub_set_that_cannot_be_loaded_is_one_sentence_with_a_way_out(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, error)
    with pytest.raises(DataError) as caught:
        find(tmp_path, source="pets", hub="someone/pets")
    message = str(caught.value)
    assert f'data.hub: "someone/pets" could not be loaded from the hub ({type(error).__name__}: ' in message
    assert "put train.jsonl, validation.jsonl and test.jsonl into $PEFTLAB_DATA/pets/" in message
    assert "\n" not in message


def test_a_hub_set_without_train_or_without_a_column_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, hub_set(test=PETS))
    with pytest.raises(DataError, match="has no train split; its splits are test"):
        find(tmp_path, hub="someone/pets")
    serve(monkeypatch, hub_set(train=PETS))
    with pytest.raises(DataError, match=r'someone/pets/train: no column "txt" \(data.text; did you mean "text"\?\)'):
        find(tmp_path, hub="someone/pets", text="txt")


def test_the_real_hub_client_with_sockets_blocked_ends_in_the_same_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r'data\.hub: "someone/pets" could not be loaded from the hub'):
        find(tmp_path, hub="someone/pets")
