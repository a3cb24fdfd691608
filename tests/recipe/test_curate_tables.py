"""`[[curate]]`: each table is typed by its curator, and every mistake has its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab.errors import RecipeError
from peftlab.recipe import plugin_lists
from peftlab.recipe.load import read_recipe
from peftlab.recipe.resolve import recipe_hash, recipe_text

Write = Callable[..., Path]
Extra = Callable[..., str]
LINE = 14
"""Line of the first [[curate]]."""


def told(recipe_file: Write, text: str, *overrides: str) -> str:
    """Return the mistakes of the recipe `text`."""
    with pytest.raises(RecipeError) as caught:
        read_recipe(recipe_file(text), overrides)
    return str(caught.value)


def test_tables_keep_their_order_and_survive_being_written_out(recipe_file: Write, with_sections: Extra) -> None:
    text = with_sections('[[curate]]\nname = "balance"\n[[curate]]\nname = "label_issues"\nfolds = 3\n')
    recipe = read_recipe(recipe_file(text))
    assert [choice.name for choice in recipe.curate] == ["balance", "label_issues"]
    again = read_recipe(recipe_file(recipe_text(recipe)), cross_check=False)
    assert again.curate == recipe.curate
    assert recipe_hash(again) == recipe_hash(recipe)


def test_a_recipe_without_curators_has_none_and_writes_none(recipe_file: Write) -> None:
    recipe = read_recipe(recipe_file())
    assert recipe.curate == ()
    assert "curate" not in recipe_text(recipe)


@pytest.mark.parametrize(
    ("table", "line", "expected"),
    [
        ('[[curate]]\nname = "duplicate"', LINE + 1, 'curate.name: expected one of "augment", "balance", "duplicates"'),
        ("[[curate]]\nfolds = 3", LINE, "curate.name: name is missing"),
        (
            '[[curate]]\nname = "label_issues"\nfolds = 1',
            LINE + 2,
            "curate.folds: expected a whole number of at least 2",
        ),
        (
            '[[curate]]\nname = "balance"\nhw = "weight"',
            LINE + 2,
            "curate.hw: unknown key in [[curate]]; did you mean how?",
        ),
        ('[curate]\nname = "balance"', LINE, "curate: expected tables, each written [[curate]]"),
        ('[[curate]]\nname = "augment"\nkinds = ["substitute"]', LINE + 2, 'curate.kinds: "substitute" needs lexicon'),
        ('[[curate]]\nname = "augment"\nlexicon = "x"', LINE + 2, 'kinds has no "substitute"'),
    ],
)
def test_a_mistake_is_a_sentence_with_its_line(
    recipe_file: Write, with_sections: Extra, table: str, line: int, expected: str
) -> None:
    said = told(recipe_file, with_sections(table))
    assert said.startswith(f"recipe.toml:{line}: curate")
    assert expected in said


def test_the_second_table_has_its_own_line(recipe_file: Write, with_sections: Extra) -> None:
    said = told(
        recipe_file, with_sections('[[curate]]\nname = "balance"\n[[curate]]\nname = "outliers"\nshare = 2.0\n')
    )
    assert said.startswith(f"recipe.toml:{LINE + 4}: curate.share: expected a number above 0 and at most 0.5")


def test_what_a_curator_needs_is_said_before_any_work(
    recipe_file: Write, with_sections: Extra, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = with_sections('[[curate]]\nname = "label_issues"\njudge = "probe"\n')
    without = text.replace('name = "lora"\nr = 4', 'name = "tfidf"').partition("[task]")
    assert "the probe needs an [encoder]" in told(recipe_file, "[task]" + without[2])
    several = text.replace('name = "classification"', 'name = "classification"\nmulti_label = true')
    assert "label_issues needs one label a row, and task.multi_label is true" in told(recipe_file, several)
    monkeypatch.setattr(plugin_lists, "find_spec", lambda _: None)
    said = told(recipe_file, text)
    assert 'needs the package cleanlab, which is not installed; pip install "peftlab[curate]"' in said


def test_an_override_replaces_all_tables(recipe_file: Write, with_sections: Extra) -> None:
    path = recipe_file(with_sections('[[curate]]\nname = "balance"\n'))
    assert read_recipe(path, ["curate=[]"]).curate == ()
    assert [choice.name for choice in read_recipe(path, ['curate=[{name="duplicates"}]']).curate] == ["duplicates"]
    said = told(recipe_file, with_sections(""), 'curate=[{name="duplicates", near=3}]')
    assert "override 'curate=" in said
    assert "expected true or false" in said
