"""The recipes that a person can name without a path: those in ./recipes and those that peftlab ships."""

from __future__ import annotations

import tomllib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def recipe_folders() -> tuple[Path, ...]:
    """Return the folders that hold recipes: ./recipes, then peftlab's own, where they exist and differ."""
    # A wheel carries the recipes inside the package; a checkout has them beside it.
    candidates = (Path("recipes"), PACKAGE / "_recipes", PACKAGE.parent / "recipes")
    found: dict[Path, Path] = {}
    for folder in candidates:
        if folder.is_dir() and any(folder.glob("*.toml")):
            found.setdefault(folder.resolve(), folder)
    return tuple(found.values())


def recipe_paths() -> dict[str, Path]:
    """Return every recipe by its name, sorted; where two folders have the name, the one in ./recipes."""
    paths: dict[str, Path] = {}
    for folder in recipe_folders():
        for path in folder.glob("*.toml"):
            paths.setdefault(path.stem, path)
    return dict(sorted(paths.items()))


def find_recipe(argument: str) -> Path:
    """Return the recipe file that `argument` means: a path, or the name of a recipe (`lora_minilm`).

    A name that no recipe has comes back as a path, so that reading it says that there is no such file.
    """
    path = Path(argument)
    if path.suffix == ".toml" or len(path.parts) != 1 or path.is_file():
        return path
    return recipe_paths().get(argument, path)


def is_pretraining(path: Path) -> bool:
    """Say whether the recipe at `path` is one for `peftlab pretrain`: it has a [corpus]. False where it is no TOML."""
    try:
        return "corpus" in tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
