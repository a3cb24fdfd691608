"""What is imported is what `pyproject.toml` asks for, so that a fresh installation has it."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def canonical(name: str) -> str:
    """Return a distribution's name in the one spelling that package indexes compare."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", name, maxsplit=1)[0]).lower()


def imported_modules(folder: Path) -> dict[str, str]:
    """Return the top-level modules that the files of `folder` import, each with one place that does."""
    local = {path.stem for path in folder.rglob("*.py")} | {"peftlab"}
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in (name.partition(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name not in local:
                    found.setdefault(name, f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def undeclared(folder: Path, asked: list[str]) -> list[str]:
    """Return the imports in `folder` of distributions that `asked` does not name."""
    provided = importlib.metadata.packages_distributions()
    declared = {canonical(requirement) for requirement in asked}
    return [
        f"{place} imports {module}"
        for module, place in imported_modules(folder).items()
        if not declared & {canonical(name) for name in provided.get(module, [module])}
    ]


def test_the_package_imports_only_what_it_requires_or_offers_as_an_extra() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = PROJECT["dependencies"] + [line for name, lines in extras.items() if name != "dev" for line in lines]
    assert undeclared(ROOT / "peftlab", asked) == []


def test_the_tests_import_only_what_is_required_somewhere() -> None:
    asked = PROJECT["dependencies"] + [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    assert undeclared(ROOT / "tests", asked) == []


@pytest.mark.parametrize("group", ["dependencies", *PROJECT["optional-dependencies"]])
def test_every_requirement_has_a_pin_within_its_range(group: str) -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonical(line): line.partition("==")[2] for line in lines if not line.startswith("#")}
    asked = PROJECT["dependencies"] if group == "dependencies" else PROJECT["optional-dependencies"][group]
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(pins[canonical(requirement.name)]), requirement.name


def test_the_pins_name_no_build_of_torch_and_no_cuda_package() -> None:
    """The same pins serve machines with and without a GPU."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = [line for line in text.splitlines() if not line.startswith("#")]
    assert not [pin for pin in pins if re.match(r"(nvidia|cuda)-", pin) or "+" in pin]
