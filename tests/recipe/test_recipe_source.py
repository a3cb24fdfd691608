"""A file that is no recipe at all is met with one sentence and its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab.errors import RecipeError
from peftlab.recipe.source import key_text, read_source


def refusal(path: Path) -> str:
    """Return the one line with which reading `path` is refused."""
    with pytest.raises(RecipeError) as caught:
        read_source(path, ())
    (mistake,) = caught.value.mistakes
    return str(mistake)


@pytest.mark.parametrize(
    ("text", "place_and_words"),
    [
        ("[train]\nseed 3\n", "2: syntax: column 6: expected key = value"),
        ("[train]\nseed = \n", "2: syntax: column 8: expected a value: text in quotes, a number"),
        ("a = 1\nname = lora\n", "2: syntax: column 8: expected a value: text in quotes"),
        ('a = "x\nb = 1\n', "1: syntax: column 7: the text has no closing quote"),
        ('a = 1\nb = """x\ny\n', "3: syntax: the text has no closing quote"),
        ("a = 'x", "1: syntax: the text has no closing quote"),
        ("[train]\na = 1\nb = 2\na = 3\nc = 4\n", "4: syntax: column 6: a key is given twice"),
        ("[a]\n[b]\n[a]\n", "3: syntax: column 3: the section 'a' is given twice"),
        ("[data.checks]\n[data]\nchecks.imbalance = 'stop'\n", "3: syntax: column 26: the section is given twice"),
        ("a = {b = 1, b = 2}\n", "1: syntax: column 18: the key 'b' is given twice"),
        ("a = [1 2]\n", "1: syntax: column 8: the list has no closing bracket"),
        ("a = {b = 1\n", "1: syntax: column 11: the inline table has no closing brace"),
        ("a = 1 2\n", "1: syntax: column 7: expected the end of the line; text needs quotes"),
        ('a = "\\q"\n', "1: syntax: column 8: a backslash in text must be doubled"),
        ("é = 1\n", "1: syntax: column 1: expected [section] or key = value"),
    ],
)
def test_broken_toml_is_one_line_with_its_place(
    recipe_file: Callable[..., Path], text: str, place_and_words: str
) -> None:
    assert refusal(recipe_file(text)).startswith(f"recipe.toml:{place_and_words}")


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "\x00", "\ufeff\ufeff", "a = 1\rb = 2"])
def test_hostile_text_is_refused_like_any_other(recipe_file: Callable[..., Path], text: str) -> None:
    assert refusal(recipe_file(text)).startswith("recipe.toml")


def test_a_byte_order_mark_is_no_mistake(recipe_file: Callable[..., Path]) -> None:
    assert read_source(recipe_file("\ufeffa = 1\n"), ()).values == {"a": 1}


def test_bytes_that_are_no_utf8_are_on_their_line(recipe_file: Callable[..., Path]) -> None:
    path = recipe_file()
    path.write_bytes("a = 1\n# Übung\n".encode("latin-1"))
    assert refusal(path) == (
        "recipe.toml:2: encoding: expected UTF-8 text, found the byte 0xdc; save the file as UTF-8"
    )


def test_a_file_that_is_not_there_brings_its_neighbour_to_mind(recipe_file: Callable[..., Path]) -> None:
    recipe_file()
    assert refusal(Path("recipes.toml")) == ("recipes.toml: recipe: there is no such file; did you mean recipe.toml?")
    assert refusal(Path("nowhere/x.toml")).endswith("there is no such file; `peftlab list` names the recipes")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith(": recipe: cannot be read: is a directory")


def test_keys_are_written_as_in_toml() -> None:
    assert key_text(("task", "class_weights", "a b", 3)) == 'task.class_weights."a b"'
