"""The committed searches: their pages are those of their records, and what they say of the budget holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftlab.reports.climb_page import RECORD, climb_files, read_search

FOLDERS = sorted(
    record.parent for record in (Path(__file__).resolve().parents[2] / "benchmarks" / "searches").glob(f"*/{RECORD}")
)


def test_there_are_committed_searches() -> None:
    assert "tickets_zh" in {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_pages_are_those_of_the_record(folder: Path) -> None:
    for name, text in climb_files(read_search(folder)).items():
        assert (folder / name).read_text(encoding="utf-8") == text, f"{folder / name} is stale"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_verdict_follows_from_the_test_interval_and_no_ceiling_is_passed(folder: Path) -> None:
    record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    metric, cost, ceilings = record["metric"], record["cost"], record["ceilings"]

    assert metric["split"] == "test"
    assert (record["verdict"] == "reached") == (metric["low"] >= record["target"])
    assert cost["minutes"] <= ceilings["minutes"]
    assert cost["trainable_parameters"] <= ceilings["trainable_parameters"]
    assert cost["labels"] <= ceilings.get("labels", cost["labels"])
