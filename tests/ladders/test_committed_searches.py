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


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_would_change_the_answer_is_a_rung_behind_the_best_one(folder: Path) -> None:
    """A rung before it is cheaper, and was left behind already; an answer that is reached needs none."""
    record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    names = [step["rung"] for step in record["rungs"]]
    behind = record["rungs"][names.index(record["rung"]) + 1 :]
    open_still = [f"the rung {step['rung']} (" for step in behind if step["state"] != "climbed"]
    said = record["what_would_change_it"]["rung"]
    if record["verdict"] == "reached":
        assert said is None
    else:
        assert said.startswith(tuple(open_still))
        assert said in record["sentence"]
