"""The folder of one run: where it is, whether it may be written, and what it says of its start."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peftlab.errors import RunError
from peftlab.recipe.pretraining import PretrainRecipe
from peftlab.recipe.records import Recipe
from peftlab.runs.files import write_json
from peftlab.runs.model_record import RECIPE

ENVIRONMENT = "environment.json"


def new_run_folder(name: str, asked: str | None) -> Path:
    """Return the folder of a new run: `asked`, or ``runs/<name>-<time>``; RunError where it is taken."""
    if asked is None:
        base = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        folder, number = base, 2
        while folder.exists():
            folder, number = base.with_name(f"{base.name}-{number}"), number + 1
        return folder
    folder = Path(asked)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"run.dir {asked!r} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise RunError(
            f"run.dir {asked!r} already holds files; name another folder, or continue its run with: "
            f"peftlab train --resume {asked}"
        )
    return folder


def begun_folder(asked: str | None, resume: str) -> Path | None:
    """Return `run.dir`, `asked`, where `train.resume` is `auto` and a run was begun there; None where one begins."""
    begun = resume == "auto" and asked is not None and (Path(asked) / RECIPE).is_file()
    return Path(asked) if begun and asked is not None else None


def chosen_folder(name: str, asked: str | None, begun: Path | None, finished: Callable[[Path], bool]) -> str | None:
    """Return the folder of a new run, or of the one that was `begun`; None where that is finished, which is said."""
    if begun is None:
        return str(new_run_folder(name, asked))
    if finished(begun):
        print(f"{begun} is finished; nothing to continue", file=sys.stderr)
        print(begun)
        return None
    return str(begun)


def write_environment(folder: Path, values: dict[str, Any]) -> None:
    """Write `environment.json`: what the run started from."""
    write_json(folder / ENVIRONMENT, values)


def read_environment(folder: Path) -> dict[str, Any]:
    """Return `environment.json` of a run; RunError where the folder is no run."""
    path = folder / ENVIRONMENT
    if not folder.is_dir():
        raise RunError(f"there is no run folder {folder}")
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{folder} is no run folder: {path.name} is missing or broken ({type(error).__name__})"
        ) from error
    return values


def run_recipe(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the resolved recipe of the run in `folder`, under the name and beside the files it was started from.

    `overrides`: settings over the run's own, of those that do not change what it computes.
    """
    from peftlab.recipe.load import read_recipe

    origin = read_environment(folder)["recipe"]
    recipe = read_recipe(folder / RECIPE, overrides, cross_check=False)
    return recipe.model_copy(update={"name": origin["name"], "path": Path(origin["path"])})


def run_pretrain_recipe(folder: Path) -> PretrainRecipe:
    """Return the resolved recipe of the pretraining in `folder`, as `run_recipe` does for a training."""
    from peftlab.recipe.load import read_pretraining

    kept = read_environment(folder)
    if kept.get("kind") != "pretraining":
        raise RunError(f"{folder} is no pretraining; continue a training with: peftlab train --resume {folder}")
    recipe = read_pretraining(folder / RECIPE, cross_check=False)
    return recipe.model_copy(update={"name": kept["recipe"]["name"], "path": Path(kept["recipe"]["path"])})


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)
