"""The plug-in folders: the file name is the registry.

A plug-in is one file in `peftlab/methods/`, `tasks/`, `curators/` or `exporters/`. Its name in a recipe or on a
command line is its file's name; nothing registers itself and no list is edited. Plug-in files import nothing heavy at
module level, so that reading a recipe takes no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Literal

Folder = Literal["methods", "tasks", "curators", "exporters"]


@dataclass(frozen=True)
class LearningRate:
    """A method's usual learning rates on small encoders: `default`, and the range outside which a value is refused."""

    low: float
    default: float
    high: float


@cache
def plugin_names(folder: Folder) -> tuple[str, ...]:
    """Return the names of the plug-ins in `folder`, sorted."""
    package = importlib.import_module(f"peftlab.{folder}")
    return tuple(sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")))


def load_plugin(folder: Folder, name: str) -> ModuleType:
    """Return the plug-in module `name` of `folder`; KeyError where there is none of that name."""
    if name not in plugin_names(folder):
        raise KeyError(name)
    return importlib.import_module(f"peftlab.{folder}.{name}")


def tasks_in(feature: str) -> tuple[str, ...]:
    """Return the tasks that name `feature` in their `FEATURES`."""
    return tuple(name for name in plugin_names("tasks") if feature in load_plugin("tasks", name).FEATURES)


def named(names: Sequence[str], word: str) -> str:
    """Return `names` joined by `word`; of more than three the first two, and how many there are besides."""
    if len(names) <= 3:
        return f" {word} ".join(names)
    return f"{', '.join(names[:2])} {word} {len(names) - 2} others"
