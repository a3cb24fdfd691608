"""docs/methods_measured.md says what the records say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_of_every_method_is_that_of_the_committed_records() -> None:
    """Stale? `python benchmarks/method_table.py` writes it anew."""
    spec = importlib.util.spec_from_file_location("method_table", ROOT / "benchmarks" / "method_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "methods_measured.md").read_text(encoding="utf-8") == module.page()
