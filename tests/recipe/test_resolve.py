"""A recipe written out in full reads back to the same recipe, and has one hash whatever its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftlab.recipe import plugins
from peftlab.recipe.load import read_pretraining, read_recipe
from peftlab.recipe.records import Recipe
from peftlab.recipe.resolve import recipe_hash, recipe_text, resolved, resolved_pretraining
from peftlab.recipe.shipped import is_pretraining

Write = Callable[..., Path]
EVERY = sorted(Path(__file__).resolve().parents[2].joinpath("recipes").glob("*.toml"))
RECIPES = [path for path in EVERY if not is_pretraining(path)]
PRETRAINING = [path for path in EVERY if is_pretraining(path)]


def read_text(folder: Path, text: str) -> Recipe:
    """Read `text` as the recipe that a finished run keeps."""
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8", newline="")
    return read_recipe(path, cross_check=False)


def same_name(recipe: Recipe) -> Recipe:
    """Return `recipe` without what depends on its file."""
    return recipe.model_copy(update={"name": "", "path": Path()})


def test_recipes_are_shipped() -> None:
    assert RECIPES
    assert PRETRAINING


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_survives_being_written_out(path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(path)
    for written in (recipe, resolved(recipe)):
        assert same_name(read_text(tmp_path, recipe_text(written))) == same_name(written)
    assert recipe_hash(read_text(tmp_path, recipe_text(recipe))) == recipe_hash(recipe)


@pytest.mark.parametrize("path", PRETRAINING, ids=lambda path: path.stem)
def test_a_shipped_pretraining_recipe_survives_being_written_out(path: Path, tmp_path: Path) -> None:
    recipe = read_pretraining(path)
    for written in (recipe, resolved_pretraining(recipe)):
        copy = tmp_path / "recipe.toml"
        copy.write_text(recipe_text(written), encoding="utf-8")
        again = read_pretraining(copy, cross_check=False)
        assert again.model_copy(update={"name": "", "path": Path()}) == written.model_copy(
            update={"name": "", "path": Path()}
        )
        assert recipe_hash(again) == recipe_hash(recipe)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
RATE = st.floats(1e-300, 9.9)
SECTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "encoder": {"stand_in": TEXT, "pooling": st.sampled_from(["mean", "cls"]), "max_length": st.integers(4, 8192)},
    "data": {
        "text": TEXT,
        "pair": TEXT,
        "split_seed": st.integers(-(2**63), 2**63 - 1),
        "split": st.just([0.5, 0.25, 0.25]),
    },
    "train": {
        "learning_rate": RATE | st.just("auto") | st.integers(1, 9),
        "epochs": RATE,
        "threads": st.integers(1, 99),
    },
    "optimizer": {"clip": RATE | st.just("none"), "lora_plus": st.floats(1, 1e300) | st.just("none")},
    "run": {"dir": TEXT, "trackers": st.lists(TEXT, max_size=3), "project": TEXT},
    "task": {"class_weights": st.dictionaries(TEXT, RATE) | st.sampled_from(["none", "balanced"])},
    "method": {"layers": st.lists(st.integers(-99, 99)) | st.just("all"), "dora": st.booleans(), "alpha": RATE},
}
REQUIRED = {
    "encoder": {"name": "bundled:minilm-en"},
    "data": {"source": "banking77"},
    "task": {"name": "classification"},
    "method": {"name": "lora"},
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({name: st.fixed_dictionaries({}, optional=keys) for name, keys in SECTIONS.items()}))
def test_any_recipe_survives_being_written_out(tmp_path: Path, drawn: dict[str, dict[str, Any]]) -> None:
    recipe = read_text(tmp_path, tomlkit.dumps({name: {**REQUIRED.get(name, {}), **drawn[name]} for name in drawn}))
    again = read_text(tmp_path, recipe_text(recipe))
    assert again == recipe
    assert recipe_hash(again) == recipe_hash(recipe)


def test_every_default_is_written_out_and_unset_keys_only_where_the_default_is_set(recipe_file: Write) -> None:
    text = recipe_text(read_recipe(recipe_file(), ["optimizer.clip=none"]))
    assert 'clip = "none"' in text
    assert "stand_in" not in text
    for line in ("r = 4", "alpha = 16.0", "batch_size = 32", "split = [0.6, 0.2, 0.2]", "[data.checks]"):
        assert line in text.splitlines()


def test_resolving_fills_in_what_follows_from_other_settings(
    recipe_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = plugins.load_plugin("methods", "lora")
    monkeypatch.setattr(lora, "LEARNING_RATE", plugins.LearningRate(1e-4, 6e-4, 5e-3))
    monkeypatch.setattr(plugins.load_plugin("tasks", "classification"), "DEFAULT_METRIC", "macro_f1")
    recipe = resolved(read_recipe(recipe_file(), ["train.seed=3"]))
    assert recipe.train.learning_rate == 6e-4
    assert recipe.optimizer.head_learning_rate == 6e-4
    assert recipe.evaluation.metric == "macro_f1"
    assert recipe.data.split_seed == 3
    assert resolved(recipe) == recipe


def test_resolving_keeps_what_was_said(recipe_file: Write) -> None:
    said = ["train.learning_rate=1e-3", "optimizer.head_learning_rate=1e-2", "data.split_seed=5"]
    recipe = resolved(read_recipe(recipe_file(), [*said, "evaluation.metric=macro_f1"]))
    assert recipe.train.learning_rate == 1e-3
    assert recipe.optimizer.head_learning_rate == 1e-2
    assert recipe.data.split_seed == 5
    assert recipe.evaluation.metric == "macro_f1"


@pytest.mark.parametrize(
    ("method", "words", "rates"),
    [
        ("fourierft", (), (5e-2, 5e-3)),
        ("fourierft", ("head.init=probe",), (5e-2, 5e-4)),
        ("lora", ("head.init=probe", "train.learning_rate=2e-3"), (2e-3, 5e-4)),
        ("lora", ("head.init=probe", "train.learning_rate=1e-4"), (1e-4, 1e-4)),
        ("lora", ("head.init=probe", "optimizer.head_learning_rate=1e-2"), (5e-4, 1e-2)),
        ("head", (), (5e-3, 5e-3)),
        ("head", ("head.init=probe",), (5e-4, 5e-4)),
        ("head", ("head.init=probe", "train.learning_rate=2e-2"), (2e-2, 2e-2)),
    ],
)
def test_a_head_takes_no_more_of_a_methods_rate_than_it_bears(
    method: str, words: tuple[str, ...], rates: tuple[float, float], recipe_file: Write
) -> None:
    recipe = resolved(read_recipe(recipe_file(), [f'method={{name="{method}"}}', *words]))
    assert (recipe.train.learning_rate, recipe.optimizer.head_learning_rate) == rates


def test_a_method_without_a_learning_rate_leaves_it_open(recipe_file: Write) -> None:
    recipe = resolved(read_recipe(recipe_file(), ['method={name="tfidf"}']))
    assert recipe.train.learning_rate == "auto"
    assert recipe.optimizer.head_learning_rate is None


def test_the_hash_ignores_layout_place_and_what_changes_no_result(recipe_file: Write, tmp_path: Path) -> None:
    path = recipe_file()
    first = recipe_hash(read_recipe(path))
    other = tmp_path / "other" / "name.toml"
    other.parent.mkdir()
    other.write_text(
        "method = {r = 4, name = 'lora'}\ndata.source = 'builtin:tickets-en'\ntask.name = 'classification'\n"
        "train.epochs = 3\n[encoder]\nname = 'bundled:minilm-en'\n"
    )
    assert recipe_hash(read_recipe(other)) == first
    indifferent = ["run.dir=x", "run.trackers=[]", "run.project=y", "train.resume=auto"]
    assert recipe_hash(read_recipe(path, indifferent)) == first
    assert recipe_hash(resolved(read_recipe(path))) == first
    assert len(first) == 64


@pytest.mark.parametrize(
    "override",
    ["train.seed=1", "method.r=8", "task.loss=focal", "data.text=body", "encoder.pooling=cls", "optimizer.clip=none"],
)
def test_the_hash_follows_every_setting_that_can_change_a_result(recipe_file: Write, override: str) -> None:
    path = recipe_file()
    assert recipe_hash(read_recipe(path, [override])) != recipe_hash(read_recipe(path))
