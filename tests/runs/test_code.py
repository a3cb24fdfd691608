"""The code hash moves with what a run computes, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftlab.runs.code import _file_hash, _imported, code_hash

FILES = {
    "training/job.py": "from peftlab.data.rows import read\n\n\ndef f():\n    from peftlab.reports.card import g\n",
    "data/rows.py": 'def read():\n    """Read."""\n    return 1\n',
    "data/unused.py": "",
    "reports/card.py": "def g(): ...\n",
    "methods/lora.py": "",
    "methods/full.py": "",
    "tasks/classification.py": "import peftlab.errors\n",
    "errors.py": "",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a small package laid out as peftlab is."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def hash_after(package: Path, name: str, text: str) -> str:
    """Return the hash for LoRA once `name` holds `text`."""
    (package / name).write_text(text, encoding="utf-8")
    _file_hash.cache_clear()
    _imported.cache_clear()
    return code_hash("lora", "classification", package)


@pytest.mark.parametrize(
    "name",
    ["training/job.py", "data/rows.py", "data/rows.c", "methods/lora.py", "tasks/classification.py", "errors.py"],
)
def test_a_change_of_what_a_run_executes_changes_the_hash(package: Path, name: str) -> None:
    """Also in a module that is only imported by another one, and in C source that belongs to it."""
    before = code_hash("lora", "classification", package)
    assert hash_after(package, name, FILES.get(name, "") + "x = 1\n") != before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("methods/full.py", "x = 1\n"),
        ("methods/brand_new.py", "x = 1\n"),
        ("reports/card.py", "x = 1\n"),
        ("data/unused.py", "x = 1\n"),
        ("data/rows.py", '# A comment.\n\ndef read():\n    """Read it all."""\n\n    return 1\n'),
    ],
)
def test_another_method_a_report_a_comment_and_a_docstring_leave_it(package: Path, name: str, text: str) -> None:
    before = code_hash("lora", "classification", package)
    assert hash_after(package, name, text) == before


def test_the_curators_of_a_recipe_count_and_others_do_not(package: Path) -> None:
    (package / "curators").mkdir()
    before = code_hash("lora", "classification", package)
    assert hash_after(package, "curators/clean.py", "x = 1\n") == before
    with_curator = code_hash("lora", "classification", package, curators=["clean"])
    assert with_curator != before
    hash_after(package, "curators/clean.py", "x = 2\n")
    assert code_hash("lora", "classification", package, curators=["clean"]) != with_curator


def test_the_real_hash_covers_loop_and_plugins() -> None:
    """A hash per method: 64 hexadecimal digits, each its own."""
    hashes = {code_hash(method, "classification") for method in ("lora", "head", "tfidf")}
    assert len(hashes) == 3
    assert all(len(value) == 64 for value in hashes)
