"""The committed pages of runs of tasks are those of the committed records."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "benchmarks" / "results" / "tasks").glob("*/README.md"))


@pytest.fixture(scope="module")
def program() -> Any:
    spec = importlib.util.spec_from_file_location("tasks", ROOT / "benchmarks" / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_records() -> None:
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_committed_page_is_that_of_the_committed_records(folder: Path, program: Any) -> None:
    """Stale? `program.readme(folder)` writes it anew; nothing on it may name this machine's folders."""
    page = (folder / "README.md").read_text("utf-8")

    assert page == program.readme(folder)
    assert all(str(ROOT) not in path.read_text("utf-8") for path in folder.glob("*.json"))
    assert all(
        (ROOT / "recipes" / f"{path.stem}.toml").is_file() for path in folder.glob("*.json") if path.stem != "checked"
    )
