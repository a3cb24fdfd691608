"""Curators act on the training rows of a run and on nothing else, and a run that goes on finds their work done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab import curate, train
from peftlab.recipe.load import read_recipe
from peftlab.recipe.resolve import recipe_hash
from peftlab.runs.result import read_result

CURATORS = """
[[curate]]
name = "duplicates"
threshold = 0.8

[[curate]]
name = "label_issues"
judge = "tfidf"
action = "weight"

[[curate]]
name = "outliers"
action = "drop"
share = 0.05

[[curate]]
name = "augment"
kinds = ["typo", "swap"]
share = 0.2

[[curate]]
name = "balance"
how = "weight"
"""


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory, tiny_tickets: Callable[..., Path]) -> dict[str, Path]:
    """Return the tickets' files; validation and test with every text replaced, and labels as they were."""
    folder = tmp_path_factory.mktemp("rotated")
    files = {"train": tiny_tickets() / "train.jsonl"}
    for split in ("validation", "test"):
        rows = [json.loads(line) for line in (tiny_tickets() / f"{split}.jsonl").read_text("utf-8").splitlines()]
        files[split] = folder / f"{split}.jsonl"
        made = [json.dumps(row | {"text": f"{row['id']} something else altogether"}) + "\n" for row in rows]
        files[split].write_text("".join(made), encoding="utf-8")
    return files


def done(recipe: Path, run: Path, *words: str) -> Path:
    assert train.main([str(recipe), f"run.dir={run}", *words]) == 0
    return run


def test_a_run_is_trained_on_the_curated_rows_and_scored_on_all_others(
    tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    run = done(tiny_recipe("probe", sections=CURATORS), tmp_path / "run")
    result = read_result(run)
    record = json.loads((run / "curation" / "curation.json").read_text(encoding="utf-8"))
    assert result.status == "ok"
    assert result.data is not None
    assert result.data.rows == {"train": record["rows_out"], "validation": 24, "test": 24}
    assert [step["name"] for step in record["steps"]] == [
        "duplicates",
        "label_issues",
        "outliers",
        "augment",
        "balance",
    ]
    assert any(note.startswith("curate augment:") for note in result.notes)
    assert len((run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 24


@pytest.mark.parametrize("method", ["probe", "tfidf"])
def test_other_validation_and_test_texts_change_nothing_that_curators_do(
    method: str, tiny_recipe: Callable[..., Path], rotated: dict[str, Path], tmp_path: Path
) -> None:
    """The embedding judge too, so that no statistic of the other splits reaches it."""
    sections = CURATORS.replace('judge = "tfidf"', 'judge = "probe"')
    trial = "evaluation.score_test=false"
    first = done(tiny_recipe(method, sections=sections), tmp_path / "first", trial)
    files = "\n".join(f'{split} = "{path}"' for split, path in rotated.items())
    second = done(tiny_recipe(method, data=files, sections=sections), tmp_path / "second", trial)
    changes = [(run / "curation" / "changes.jsonl").read_bytes() for run in (first, second)]
    assert changes[0] == changes[1]
    assert changes[0].count(b"\n") > 10


def test_a_continued_run_takes_the_written_changes_and_ends_in_the_same_bits(
    tiny_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("lora", sections=CURATORS)
    whole = done(recipe, tmp_path / "whole")

    from peftlab.training import supervise

    interrupted = tmp_path / "interrupted"
    kept = supervise.save_checkpoint

    def save_then_stop(*words: object, **named: object) -> object:
        kept(*words, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(supervise, "save_checkpoint", save_then_stop)
    assert train.main([str(recipe), f"run.dir={interrupted}"]) == 130
    monkeypatch.setattr(supervise, "save_checkpoint", kept)
    monkeypatch.setattr("peftlab.training.curate.run_curators", None)
    assert train.main(["--resume", str(interrupted)]) == 0
    weights = [(run / "trained" / "adapter_model.safetensors").read_bytes() for run in (whole, interrupted)]
    assert weights[0] == weights[1]
    assert (whole / "predictions.jsonl").read_bytes() == (interrupted / "predictions.jsonl").read_bytes()


def test_row_weights_reach_the_loss_of_the_training_loop(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """The other solvers' weights are tested where they solve."""
    dropping = '[[curate]]\nname = "outliers"\nshare = 0.3\naction = "drop"\n'
    weighing = '[[curate]]\nname = "balance"\nhow = "weight"\n'
    words = ("train.max_steps=2", "evaluation.score_test=false")
    plain = done(tiny_recipe("head", sections=dropping), tmp_path / "plain", *words)
    weighed = done(tiny_recipe("head", sections=dropping + weighing), tmp_path / "weighed", *words)
    heads = [(run / "trained" / "trained.safetensors").read_bytes() for run in (plain, weighed)]
    assert heads[0] != heads[1]


def test_validation_rows_that_are_trained_on_too_pass_by_the_curators(
    tiny_recipe: Callable[..., Path], tiny_tickets: Callable[..., Path], tmp_path: Path
) -> None:
    files = "\n".join(f'{split} = "{tiny_tickets() / split}.jsonl"' for split in ("train", "validation", "test"))
    recipe = tiny_recipe("probe", data=f"{files}\ntrain_on_validation = true", sections=CURATORS)
    run = done(recipe, tmp_path / "run")
    record = json.loads((run / "curation" / "curation.json").read_text(encoding="utf-8"))
    result = read_result(run)
    assert record["steps"][0]["rows_in"] == 60
    assert result.data is not None
    assert result.data.rows == {"train": record["rows_out"] + 24, "test": 24}


def test_curate_alone_writes_what_a_run_would_do(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe("probe", sections=CURATORS)
    out = tmp_path / "review"
    assert curate.main([str(recipe), "--out", str(out), "--json"]) == 0
    printed, said = capsys.readouterr()
    assert printed.splitlines()[-1] == str(out)
    record = json.loads(printed.rpartition("\n}\n")[0] + "\n}")
    assert record["rows_out"] == record["steps"][-1]["rows_out"]
    assert (out / "review-3-outliers.csv").is_file()
    assert "review-3-outliers.html" in said
    run = done(recipe, tmp_path / "run")
    assert (run / "curation" / "changes.jsonl").read_bytes() == (out / "changes.jsonl").read_bytes()


def test_curate_without_a_curator_says_what_to_add(
    tiny_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert curate.main([str(tiny_recipe("probe"))]) == 2
    assert "names no curator; add [[curate]]" in capsys.readouterr().err


def test_curators_are_part_of_the_recipe_hash_and_their_absence_is_not(tiny_recipe: Callable[..., Path]) -> None:
    plain = recipe_hash(read_recipe(tiny_recipe("probe")))
    curated = read_recipe(tiny_recipe("probe", sections=CURATORS))
    other = read_recipe(tiny_recipe("probe", sections=CURATORS.replace("0.2", "0.3")))
    assert len({plain, recipe_hash(curated), recipe_hash(other)}) == 3
    assert recipe_hash(curated.model_copy(update={"curate": ()})) == plain
