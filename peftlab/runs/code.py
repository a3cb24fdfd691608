"""Which code made a result: a hash of the modules that bear on its figures."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT_MODULE = "training.job"
NO_BEARING = ("reports",)
"""Folders whose modules draw and word what was measured."""


def code_hash(method: str, task: str, package: Path = PACKAGE, *, curators: Sequence[str] = ()) -> str:
    """Return the SHA-256, in hexadecimal, of the code that trains, proves and scores a run.

    That is `training/job.py`, the files of the method, the task and the `curators`, and every module of peftlab that
    these import, one from another, but for `reports/`. A new method, another report or a changed comment or docstring
    leaves it as it is.
    """
    total = hashlib.sha256()
    named = (ROOT_MODULE, f"methods.{method}", f"tasks.{task}", *(f"curators.{name}" for name in curators))
    for module in sorted(_reached(package, named)):
        total.update(f"{module} {_file_hash(_file(package, module))}\n".encode())
    return total.hexdigest()


def _reached(package: Path, roots: tuple[str, ...]) -> set[str]:
    """Return `roots` and all modules that they import, directly or not, by their names within `package`."""
    found: set[str] = set()
    waiting = [root for root in roots if _file(package, root).is_file()]
    while waiting:
        module = waiting.pop()
        if module in found or module.partition(".")[0] in NO_BEARING:
            continue
        found.add(module)
        waiting += [name for name in _imported(_file(package, module)) if _file(package, name).is_file()]
    return found


def _file(package: Path, module: str) -> Path:
    path = package.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _imported(path: Path) -> tuple[str, ...]:
    """Return the names below `peftlab.` that the file imports, also inside functions; some are no modules."""
    return tuple(_names(ast.parse(path.read_text(encoding="utf-8"))))


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            full = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
        else:
            continue
        yield from (name.removeprefix("peftlab.") for name in full if name.startswith("peftlab."))


@cache
def _file_hash(path: Path) -> str:
    """Return the SHA-256 of the file's code, without comments, docstrings and layout, and of the C source beside it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            bare = [part for part in body if not _is_text(part)]
            node.body = bare or [ast.Pass()]  # type: ignore[attr-defined]
    beside = path.with_suffix(".c")
    source = beside.read_bytes() if beside.is_file() else b""
    return hashlib.sha256(ast.unparse(tree).encode() + source).hexdigest()


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
