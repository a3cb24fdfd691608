"""A recipe can be named without its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftlab.recipe import shipped


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with ./recipes, and an installed package that carries its own."""
    package = tmp_path / "site" / "peftlab"
    for path in (tmp_path / "work/recipes/mine.toml", tmp_path / "work/recipes/both.toml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ("both", "theirs"):
        path = package / "_recipes" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(shipped, "PACKAGE", package)
    return tmp_path


def test_a_name_is_found_here_first_then_in_the_package(folders: Path) -> None:
    package = folders / "site" / "peftlab" / "_recipes"
    assert shipped.recipe_paths() == {
        "both": Path("recipes/both.toml"),
        "mine": Path("recipes/mine.toml"),
        "theirs": package / "theirs.toml",
    }
    assert shipped.find_recipe("both") == Path("recipes/both.toml")
    assert shipped.find_recipe("theirs") == package / "theirs.toml"


@pytest.mark.parametrize("argument", ["mine.toml", "recipes/mine", "other/mine.toml", "unknown"])
def test_a_path_and_an_unknown_name_come_back_as_they_are(folders: Path, argument: str) -> None:
    assert shipped.find_recipe(argument) == Path(argument)
