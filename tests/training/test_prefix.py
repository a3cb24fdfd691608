"""The frozen prefix: without dropout, computed once for each text, and the same training with and without the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from peftlab.cli import main
from peftlab.encoders import prefix_store
from peftlab.encoders.prefix_store import PrefixStore, kept_states

TOP = "layers = [-1]\n"


def _run(recipe: Path, folder: Path, *words: str) -> dict[str, bytes]:
    """Train `recipe` and return its trained files, predictions and notes."""
    assert main(["train", str(recipe), f"run.dir={folder}", *words]) == 0
    result = json.loads((folder / "result.json").read_text())
    files = {path.name: path.read_bytes() for path in sorted((folder / "trained").iterdir())}
    return {**files, "notes": "\n".join(result["notes"]).encode()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    monkeypatch.setenv(prefix_store.ROOT_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "prefix"


@pytest.mark.parametrize(
    ("method", "model_type", "pooling", "words"),
    [
        ("lora", "bert", "native", ["method.layers=[-1]"]),
        ("bottleneck", "roberta", "mean", ["method.layers=[-1]"]),
        ("head", "electra", "mean", []),
        ("top_layers", "distilbert", "cls", ["encoder.dtype=bf16"]),
    ],
)
def test_adapters_have_the_same_bits_with_and_without_the_cache(
    tiny_recipe: Callable[..., Path], tmp_path: Path, method: str, model_type: str, pooling: str, words: list[str]
) -> None:
    """An epoch that fills the cache, those that read it, and a run of another seed before it, change nothing."""
    recipe = tiny_recipe(method, model_type, pooling)
    without = _run(recipe, tmp_path / "without", "train.frozen_prefix=eval", *words)
    _run(recipe, tmp_path / "other", "train.frozen_prefix=cache", "train.seed=1", "data.train_rows=20", *words)
    filled = _run(recipe, tmp_path / "with", "train.frozen_prefix=cache", *words)
    read = _run(recipe, tmp_path / "again", "train.frozen_prefix=cache", *words)
    texts = len({line for name in ("train", "validation") for line in _texts(recipe, name)})
    assert b"computed for 0 texts" in read["notes"]
    assert kept_states(tmp_path / "cache" / "prefix")[0].texts == texts
    for name in without.keys() - {"notes"}:
        assert filled[name] == without[name], name
        assert read[name] == without[name], name


def _texts(recipe: Path, split: str) -> list[str]:
    line = next(line for line in recipe.read_text().splitlines() if line.startswith(f"{split} = "))
    return [json.loads(row)["text"] for row in Path(json.loads(line.partition(" = ")[2])).read_text().splitlines()]


def test_a_method_that_trains_the_lowest_layer_is_refused_in_a_sentence(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LoRA in every layer, and a prompt before the first one, leave no frozen prefix."""
    for method in ("lora", "prompt"):
        words = ["train", str(tiny_recipe(method)), f"run.dir={tmp_path / method}", "train.frozen_prefix=cache"]
        assert main(words) == 2
        assert "train.frozen_prefix" in capsys.readouterr().err


def test_a_full_cache_is_said_once_and_the_training_is_the_same(
    tiny_recipe: Callable[..., Path], tmp_path: Path, own_cache: Path
) -> None:
    """With no room for a segment nothing is kept, and the adapters have the same bits."""
    recipe = tiny_recipe("head")
    without = _run(recipe, tmp_path / "without", "train.frozen_prefix=eval")
    full = _run(recipe, tmp_path / "full", "train.frozen_prefix=cache", "train.cache_gb=1e-6")
    assert full["notes"].count(b"cache is full") == 1
    assert kept_states(own_cache)[0].texts == 0
    assert full["trained.safetensors"] == without["trained.safetensors"]


def test_two_processes_add_to_one_key_and_a_third_finds_both(tmp_path: Path) -> None:
    """Segments lie side by side; what a crash left under a hidden name is not read; half precision keeps its bits."""
    about, said = {"encoder": "e", "layers": 1, "dtype": "float32", "device": "cpu"}, list[str]()
    one, two = (PrefixStore(tmp_path, about, 10**9, said.append) for _ in range(2))
    states = [np.full((rows, 4), rows, np.float32) for rows in (2, 3)]
    one.add(b"a" * 16, states[0])
    two.add(b"a" * 16, states[0])
    two.add(b"b" * 16, states[1])
    one.write()
    two.write()
    (one.folder / ".segment.safetensors.7.tmp").write_bytes(b"half")
    three = PrefixStore(tmp_path, about, 10**9, said.append)
    for digest, expected in zip((b"a" * 16, b"b" * 16), states, strict=True):
        found = three.find(digest)
        assert found is not None
        assert np.array_equal(found, expected)
    assert three.find(b"c" * 16) is None
    assert said == []


def test_cache_lists_what_is_kept_and_clears_one_encoder(own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two encoders are kept; clearing one leaves the other; a wrong name is told."""
    for name in ("left", "right"):
        about = {"encoder": name, "layers": 2, "dtype": "float32", "device": "cpu"}
        store = PrefixStore(own_cache, about, 10**9, print)
        store.add(name.encode().ljust(16), np.zeros((5, 8), np.float32))
        store.write()
    assert main(["cache"]) == 0
    listed = capsys.readouterr().out
    assert "1 texts  left, 2 layers" in listed
    assert "1 texts  right" in listed
    assert main(["cache", "--clear", "--encoder", "middle"]) == 2
    assert "left, right" in capsys.readouterr().err
    assert main(["cache", "--clear", "--encoder", "left"]) == 0
    assert [one.about["encoder"] for one in kept_states(own_cache)] == ["right"]
    assert main(["cache", "--clear"]) == 0
    assert kept_states(own_cache) == []
