"""`key.path=value` on the command line takes the place of what the file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab.errors import RecipeError
from peftlab.recipe import plugins
from peftlab.recipe.load import read_recipe
from peftlab.recipe.overrides import apply_overrides, parse_override

Write = Callable[..., Path]


def refused(path: Path, *overrides: str) -> list[str]:
    """Return the lines with which reading `path` is refused, without the file's name."""
    with pytest.raises(RecipeError) as refusal:
        read_recipe(path, overrides)
    assert all(mistake.line is None for mistake in refusal.value.mistakes if mistake.key.startswith("override"))
    return [line.removeprefix("recipe.toml: ") for line in str(refusal.value).splitlines()]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1", 1),
        ("a.b = 2.5 ", 2.5),
        ("a.b=true", True),
        ("a.b=hfl/rbt3", "hfl/rbt3"),
        ('a.b="hfl/rbt3"', "hfl/rbt3"),
        ("a.b=[1, 2]", [1, 2]),
        ('a.b={c = "d"}', {"c": "d"}),
        ("a.b=", ""),
        ("a.b=x=y", "x=y"),
        ("a.b=2024-01-31", "2024-01-31"),
        ("a.b=1\nc = 2", "1\nc = 2"),
    ],
)
def test_the_value_is_toml_or_else_text(text: str, value: object) -> None:
    override = parse_override(text)
    assert override.path == ("a", "b")
    assert override.value == value


@pytest.mark.parametrize("text", ["train.seed", "=1", "train..seed=1", "a b=1", ".a=1"])
def test_another_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected key\.path=value, such as train\.seed=1"):
        parse_override(text)


def test_the_values_of_the_file_stay_as_they_are() -> None:
    values = {"a": {"b": [1]}}
    after = apply_overrides(values, [parse_override("a.b=2"), parse_override("c.d.e=3")])
    assert after.values == {"a": {"b": 2}, "c": {"d": {"e": 3}}}
    assert values == {"a": {"b": [1]}}
    assert after.replaced == {("a", "b")}


def test_overrides_reach_every_section_and_plug_in_and_the_later_one_wins(recipe_file: Write) -> None:
    recipe = read_recipe(
        recipe_file(),
        [
            "encoder.name=hfl/rbt3",
            "method.r=16",
            "data.checks.imbalance=stop",
            "evaluation.target=0.95",
            "train.seed=1",
            "train.seed=2",
            "run.trackers=[]",
        ],
    )
    assert recipe.encoder is not None
    assert recipe.encoder.name == "hfl/rbt3"
    assert recipe.method.config.r == 16  # type: ignore[attr-defined]
    assert recipe.data.checks.imbalance == "stop"
    assert recipe.evaluation.target == 0.95
    assert recipe.train.seed == 2
    assert recipe.run.trackers == ()


@pytest.mark.parametrize("revision", ["12345e7", "1234567", "true", "007", "2024-01-31", "0x1f"])
def test_text_that_looks_like_a_number_stays_text_where_text_is_asked(recipe_file: Write, revision: str) -> None:
    recipe = read_recipe(recipe_file(), [f"encoder.revision={revision}"])
    assert recipe.encoder is not None
    assert recipe.encoder.revision == revision


def test_none_unsets_what_may_be_unset_and_nothing_else(recipe_file: Write) -> None:
    path = recipe_file()
    assert read_recipe(path, ["optimizer.clip=none"]).optimizer.clip is None
    assert refused(path, "train.batch_size=none") == [
        "override 'train.batch_size=none': expected a whole number above 0, found \"none\""
    ]


def test_mistakes_name_the_override_after_those_of_the_file(
    recipe_file: Write, with_sections: Callable[..., str]
) -> None:
    path = recipe_file(with_sections("[train]\nseed = 'x'\nepochs = -1\n"))
    assert refused(path, "train.seed=true", "nonsense", "train.sed=1", "batch_size=2", "run.x.y=1") == [
        "recipe.toml:16: train.epochs: expected a number above 0, found -1",
        "override 'train.seed=true': expected a whole number of at least 0 and below 4294967296, found true",
        "override 'train.sed=1': unknown key in [train]; did you mean seed?",
        "override 'batch_size=2': no section has this name; batch_size belongs to [train] or [evaluation]",
        "override 'run.x.y=1': run.x: unknown key in [run]; its keys are dir, trackers, project, recipe, "
        "checkpoint_every",
        "override 'nonsense': expected key.path=value, such as train.seed=1",
    ]


def test_a_key_cannot_be_set_inside_a_value(recipe_file: Write) -> None:
    assert refused(recipe_file(), "method.r.x=1") == [
        "override 'method.r.x=1': method.r is no section, so no key can be set in it"
    ]


def test_a_section_that_an_override_begins_and_leaves_unfinished_is_the_overrides_mistake(recipe_file: Write) -> None:
    path = recipe_file('task.name = "classification"\ndata.source = "banking77"\nmethod.name = "tfidf"\n')
    assert refused(path, "encoder.pooling=mean") == [
        "override 'encoder.pooling=mean': encoder.name: missing; expected text that is not empty"
    ]


def test_another_method_keeps_the_keys_until_they_are_taken_out(
    recipe_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"tasks": ("classification",), "methods": ("full", "lora")}
    monkeypatch.setattr(plugins, "plugin_names", known.__getitem__)
    path = recipe_file()
    (line,) = refused(path, "method.name=full")
    assert line == (
        "recipe.toml:12: method.r: unknown key in [method]; r is a setting of lora, and this recipe's method is full: "
        "add the override method.r=none, or override the whole section with 'method={name=\"full\"}'"
    )
    for overrides in (["method.name=full", "method.r=none"], ['method={name="full"}']):
        assert read_recipe(path, overrides).method.name == "full"


def test_none_takes_out_only_what_is_there(recipe_file: Write) -> None:
    (line,) = refused(recipe_file(), "method.rank=none")
    assert line.startswith("override 'method.rank=none': unknown key in [method]")
    (line,) = refused(recipe_file(), "method.name=ful")
    assert line.endswith('found "ful"; did you mean "full"?')


def test_a_replaced_table_has_no_lines_of_the_file(recipe_file: Write, with_sections: Callable[..., str]) -> None:
    path = recipe_file(with_sections("[data.checks]\nimbalance = 'stop'\n"))
    assert refused(path, "data.checks={imbalance = 'no'}") == [
        "override 'data.checks={imbalance = 'no'}': data.checks.imbalance: "
        'expected one of "stop", "warn", found "no"'
    ]
