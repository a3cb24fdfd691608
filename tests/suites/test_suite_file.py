"""A suite file: every mistake in it and in its recipes at once, each with its place."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from peftlab import bench
from peftlab.errors import RecipeError
from peftlab.suites.arms import load_suite
from peftlab.suites.schema import suite_schema

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "benchmarks" / "suites").glob("*.toml"))

WRONG = """\
name = "bad name"
titel = "x"
seeds = [0, 0]
recipes = ["tfidf", "lora_minlm"]
base = "head_minilm"
methods = ["head", "lorra"]
reference = "heads"
overrides = ["train.epoch=2", "nonsense", "train.seed=3"]
[per_recipe]
nobody = ["method.r=3"]
head = ["method.r=3", "train.learning_rate=0.5"]
[tuning]
trials = 2
overrides = ["evaluation.score_test=true"]
[ceilings]
minute = 3
"""


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    """Names, numbers, overrides, and what the recipes say to them."""
    path = tmp_path / "wrong.toml"
    path.write_text(WRONG, encoding="utf-8")
    with pytest.raises(RecipeError) as refused:
        load_suite(path)
    told = [str(mistake).removeprefix(f"{path}:") for mistake in refused.value.mistakes]
    wanted = [
        '1: name: expected letters, digits, "-" and "_", as the name becomes a folder, found "bad name"',
        "2: titel: unknown key; did you mean title?",
        "3: seeds: expected each value once, found 0 again",
        "4: recipes: there is no recipe lora_minlm; did you mean lora_minilm?",
        '6: methods: expected one of "',
        "7: reference: expected a recipe of this suite, one of head, lora_minlm, lorra, tfidf, found heads",
        "8: overrides: 'nonsense': expected key.path=value, such as train.seed=1",
        "8: overrides: 'train.seed=3': seeds says it for all recipes; remove it",
        "8: overrides: 'train.epoch=2': unknown key in [train]; did you mean epochs?",
        "10: per_recipe.nobody: expected a recipe of this suite, one of",
        "11: per_recipe.head: 'train.learning_rate=0.5': [tuning] chooses it on validation; remove it",
        "11: per_recipe.head: 'method.r=3': unknown key in [method]; r is a setting of ",
        "14: tuning.overrides: 'evaluation.score_test=true': trials put the test rows aside, runs score them",
        "16: ceilings.minute: unknown key in [ceilings]; did you mean minutes?",
    ]
    assert len(told) == len(wanted), told
    for found, start in zip(told, wanted, strict=True):
        assert found.startswith(start)


def test_two_recipes_of_one_name_are_refused(tmp_path: Path, write_suite: Callable[..., Path]) -> None:
    """Records are named after recipes, so that one would take the place of the other."""
    suite = write_suite(tmp_path, 'methods = ["head"]\nrecipes = ["base.toml", "./base.toml"]\nseeds = [1]\n')
    with pytest.raises(RecipeError, match=r":5: recipes: there is a recipe named base already"):
        load_suite(suite)


def test_a_mistake_in_a_recipe_names_the_recipe_and_its_line(
    tmp_path: Path, write_suite: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, though two seeds read it; exit code 2, and nothing is written."""
    suite = write_suite(tmp_path, 'recipes = ["base.toml"]\nseeds = [0, 1]\n')
    text = suite.read_text(encoding="utf-8").replace('base = "base.toml"\n', "")
    suite.write_text(text, encoding="utf-8")
    recipe = tmp_path / "base.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("epochs = 3", "epoch = 3"), encoding="utf-8")
    assert bench.main([str(suite), "--results", str(tmp_path / "results")]) == 2
    told = capsys.readouterr().err
    assert told.count("unknown key in [train]; did you mean epochs?") == 1
    assert f"{recipe}:18: train.epoch" in told
    assert not (tmp_path / "results").exists()


def test_data_and_encoders_are_looked_for_before_the_first_run(
    tmp_path: Path, write_suite: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """All that is missing is told at once."""
    more = 'methods = ["tfidf", "head"]\nseeds = [0]\n[per_recipe]\n'
    more += 'tfidf = ["data.train=nowhere.csv"]\nhead = ["encoder.name=./no-encoder"]\n'
    suite = write_suite(tmp_path, more)
    assert bench.main([str(suite), "--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err
    assert "nowhere.csv" in told
    assert "no-encoder" in told
    assert not (tmp_path / "runs").exists()


def test_a_pattern_that_fits_no_run_is_told_with_the_names(
    tmp_path: Path, write_suite: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(tmp_path, 'methods = ["tfidf"]\nseeds = [0, 1]\n')
    assert bench.main([str(suite), "--only", "lora-*", "--results", str(tmp_path)]) == 2
    assert "they are tfidf-s0, tfidf-s1" in capsys.readouterr().err


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_suite_is_sound(path: Path) -> None:
    """Its recipes read with each seed, it fits the schema, and it is named after its file."""
    suite, arms = load_suite(path)
    assert suite.name == path.stem
    assert arms
    assert suite.reference is None or suite.reference in {arm.name for arm in arms}
    jsonschema.validate(tomllib.loads(path.read_text(encoding="utf-8")), suite_schema())


def test_the_shipped_schema_is_that_of_the_records() -> None:
    """Written by: peftlab schema suite --out docs/suite.schema.json."""
    shipped = json.loads((ROOT / "docs" / "suite.schema.json").read_text(encoding="utf-8"))
    assert shipped == suite_schema()
