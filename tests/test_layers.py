"""Imports go one way, plug-ins stand alone, modules stay small: read from the source, import by import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "peftlab"

# From the ground up; a folder may import its own layer and those below it. On top stand the programs: the modules in
# no folder, `errors` excepted.
LAYERS = (
    ("errors",),
    ("runs", "recipe"),
    ("data", "encoders"),
    ("evaluation",),
    ("curation",),
    ("methods", "tasks", "curators", "exporters"),
    ("training", "reports"),
    ("pretraining", "shipping", "suites", "labelling"),
    ("serving", "ladders"),
)
PLUGIN_FOLDERS = ("methods", "tasks", "curators", "exporters")
BANNED_NAMES = ("utils", "helpers", "common", "misc")
HEAVY = ("torch", "transformers", "peft", "sklearn", "matplotlib", "datasets", "evaluate", "accelerate", "pyarrow")
HEAVY += ("fastapi", "uvicorn")
MOST_LINES = 400
# Longer modules, each with the reason why splitting it would make it harder to read.
LONG_MODULES: dict[str, str] = {}

Place = tuple[str, ...]


@dataclass(frozen=True)
class Import:
    """One import of a peftlab module: the module that has it, its line, and the module imported, as name parts."""

    importer: Place
    line: int
    imported: Place

    def __str__(self) -> str:
        return f"{'/'.join(self.importer)}.py:{self.line} imports {'.'.join(self.imported)}"


def modules(package: Path) -> Iterator[tuple[Place, Path]]:
    """Yield every module of `package` as its name parts (without the package's own name) and its file."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        yield (parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts), path


def imports(package: Path, folder: Place, path: Path) -> Iterator[tuple[int, Place]]:
    """Yield the line and the peftlab module of each import in `path`, those in functions and type checks included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [tuple(name.name.split(".")) for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) - node.level + 1]
            found = [("peftlab", *base, *(node.module or "").split("."), name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [(*(node.module or "").split("."), name.name) for name in node.names]
        else:
            continue
        for parts in found:
            if parts[0] == "peftlab" and len(parts) > 1:
                yield node.lineno, _module(package, tuple(part for part in parts[1:] if part))


def _module(package: Path, parts: Place) -> Place:
    """Cut a name imported from a module off: `errors.UserError` is an import of `errors`."""
    while len(parts) > 1 and not (
        package.joinpath(*parts).is_dir() or package.joinpath(*parts).with_suffix(".py").is_file()
    ):
        parts = parts[:-1]
    return parts


def all_imports(package: Path) -> list[Import]:
    """Return every import of one peftlab module by another."""
    return [
        Import(importer, line, imported)
        for importer, path in modules(package)
        for line, imported in imports(package, path.relative_to(package).parts[:-1], path)
    ]


def layer(place: Place) -> int:
    """Return the height of a module's layer: its folder's; of a module in no folder, that of the programs."""
    heights = {name: height for height, names in enumerate(LAYERS) for name in names}
    if len(place) == 1 and place[0] in ("__init__", "__version__"):
        return 0
    return heights[place[0]] if len(place) > 1 else heights.get(place[0], len(LAYERS))


def upward(found: list[Import]) -> list[str]:
    """Return the imports of a higher layer."""
    return [str(one) for one in found if layer(one.imported) > layer(one.importer)]


def between_plugins(found: list[Import]) -> list[str]:
    """Return the imports of a plug-in by another plug-in, of the same folder or the other."""
    return [
        str(one)
        for one in found
        if one.importer[0] in PLUGIN_FOLDERS
        and one.imported[0] in PLUGIN_FOLDERS
        and len(one.imported) > 1
        and one.importer != one.imported
    ]


def test_a_lower_layer_never_imports_a_higher_one() -> None:
    assert upward(all_imports(PACKAGE)) == []


def test_every_folder_stands_in_a_layer() -> None:
    folders = {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    assert folders == {name for names in LAYERS[1:] for name in names}


def test_a_plugin_never_imports_another_plugin() -> None:
    assert between_plugins(all_imports(PACKAGE)) == []


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_every_plugin_folder_has_plugins(folder: str) -> None:
    assert [path for path in (PACKAGE / folder).glob("*.py") if path.stem != "__init__"]


def test_no_module_is_named_for_having_no_subject() -> None:
    assert [str(path) for _, path in modules(PACKAGE) if path.stem in BANNED_NAMES] == []


def test_no_module_is_long_without_a_reason() -> None:
    lengths = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for _, path in modules(PACKAGE)
    }
    long = {name for name, lines in lengths.items() if lines > MOST_LINES}
    assert long == set(LONG_MODULES)


@pytest.mark.parametrize(
    "module",
    [
        "peftlab.cli",
        "peftlab.bench",
        "peftlab.listing",
        "peftlab.show",
        "peftlab.schema",
        "peftlab.doctor",
        "peftlab.serve",
    ],
)
def test_a_light_program_imports_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_reading_the_plugins_imports_nothing_heavy(folder: str) -> None:
    """A recipe mistake is found before torch is imported."""
    program = (
        "import sys\n"
        "from peftlab.recipe.plugins import load_plugin, plugin_names\n"
        f"for name in plugin_names('{folder}'): load_plugin('{folder}', name)\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_each_rule_finds_what_breaks_it(tmp_path: Path) -> None:
    """The reader sees imports at the top, in functions, under TYPE_CHECKING, relative ones and `import a.b`."""
    sources = {
        "recipe/read.py": "def f():\n    from peftlab.training.loop import fit\n",
        "data/rows.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import peftlab.cli\n",
        "encoders/load.py": "from ..methods import lora\nfrom peftlab import errors, __version__\n",
        "methods/lora.py": "from .full import attach\nfrom peftlab.tasks import tagging\n",
        "methods/full.py": "",
        "tasks/tagging.py": "from peftlab.recipe.read import f\n",
        "training/loop.py": "",
        "errors.py": "",
        "cli.py": "from peftlab.training import loop\n",
    }
    for name, text in sources.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    found = all_imports(tmp_path)
    assert upward(found) == [
        "data/rows.py:3 imports cli",
        "encoders/load.py:1 imports methods.lora",
        "recipe/read.py:2 imports training.loop",
    ]
    assert between_plugins(found) == [
        "methods/lora.py:1 imports methods.full",
        "methods/lora.py:2 imports tasks.tagging",
    ]
