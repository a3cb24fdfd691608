"""The head's start from a probe is solved once for the same rows, and is the same start to the bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab.cli import main
from peftlab.encoders.prefix_store import cache_folder
from peftlab.training import head_start, solve_probe
from peftlab.training.head_start import FOLDER, kept_heads

PROBE = '[head]\ninit = "probe"\n'
AGAIN = "solved by an earlier run on these rows"


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one with every probe that is really solved."""
    times: list[int] = []
    solve = solve_probe.probe_head

    def counted(*words: object, **options: object) -> object:
        times.append(1)
        return solve(*words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(head_start, "probe_head", counted)
    return times


def run(recipe: Path, folder: Path, *words: str) -> dict[str, bytes]:
    """Train and return what was saved, and the metrics of the result."""
    assert main(["train", str(recipe), f"run.dir={folder}", "train.epochs=1", *words]) == 0
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    files = {path.name: path.read_bytes() for path in sorted((folder / "trained").iterdir()) if path.suffix != ".md"}
    return files | {"metrics": json.dumps(result["metrics"]).encode()}


def test_a_second_run_starts_from_the_same_head_and_comes_to_the_same_bits(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    solved: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Solved, read, and solved again where nothing is kept: one result."""
    recipe = tiny_recipe("lora", sections=PROBE)
    first = run(recipe, tmp_path / "first")
    assert AGAIN not in capsys.readouterr().err
    second = run(recipe, tmp_path / "second")
    assert AGAIN in capsys.readouterr().err
    assert len(solved) == 1
    monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path / "empty"))
    third = run(recipe, tmp_path / "third")

    assert len(solved) == 2
    assert first == second == third


def test_methods_and_learning_rates_share_it(
    tiny_recipe: Callable[..., Path], tmp_path: Path, solved: list[int]
) -> None:
    for method in ("lora", "bottleneck", "full", "ia3", "bitfit"):
        run(tiny_recipe(method, sections=PROBE), tmp_path / method)
    run(tiny_recipe("lora", sections=PROBE), tmp_path / "slower", "train.learning_rate=1e-4")
    assert len(solved) == 1


@pytest.mark.parametrize(
    "word",
    ["train.seed=1", "data.train_rows=40", "encoder.pooling=cls", "encoder.max_length=9", "train.precision=bf16"],
)
def test_what_bears_on_it_makes_it_another(
    word: str, tiny_recipe: Callable[..., Path], tmp_path: Path, solved: list[int]
) -> None:
    recipe = tiny_recipe("lora", sections=PROBE)
    run(recipe, tmp_path / "first")
    run(recipe, tmp_path / "second", word)
    assert len(solved) == 2


def test_another_pooling_of_the_encoders_own_folder_makes_it_another(
    tiny_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], tmp_path: Path, solved: list[int]
) -> None:
    """With `auto` the folder says how it pools, beside its weights."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder(), folder)
    (folder / "1_Pooling").mkdir()
    recipe = tiny_recipe("lora", pooling="auto", sections=PROBE)
    for place, cls in enumerate((False, True)):
        stated = json.dumps({"pooling_mode_cls_token": cls, "pooling_mode_mean_tokens": not cls})
        (folder / "1_Pooling" / "config.json").write_text(stated, encoding="utf-8")
        run(recipe, tmp_path / f"run{place}", f"encoder.name={folder}")
    assert len(solved) == 2


def test_a_damaged_file_is_solved_anew(tiny_recipe: Callable[..., Path], tmp_path: Path, solved: list[int]) -> None:
    recipe = tiny_recipe("lora", sections=PROBE)
    first = run(recipe, tmp_path / "first")
    (kept,) = kept_heads()
    kept.path.write_bytes(kept.path.read_bytes()[:40])
    second = run(recipe, tmp_path / "second")
    assert len(solved) == 2
    assert second == first


def test_a_folder_that_cannot_be_written_to_is_said_and_costs_no_run(
    tiny_recipe: Callable[..., Path], tmp_path: Path, solved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path / "file"))
    run(tiny_recipe("lora", sections=PROBE), tmp_path / "run")
    notes = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["notes"]
    assert sum("could not be kept in" in note for note in notes) == 1
    assert len(solved) == 1


def test_cache_lists_heads_and_clears_them(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_recipe("lora", sections=PROBE), tmp_path / "run")
    (kept,) = kept_heads()
    assert main(["cache"]) == 0
    assert f"1 heads {kept.encoder}, solved as probes" in " ".join(capsys.readouterr().out.split())
    assert main(["cache", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert line == {"kind": "heads", "encoder": kept.encoder, "heads": 1, "bytes": kept.size}
    assert main(["cache", "--clear", "--encoder", kept.encoder]) == 0
    assert list(cache_folder(FOLDER).iterdir()) == []
