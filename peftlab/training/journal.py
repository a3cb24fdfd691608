"""The metric lines of a run, `metrics.jsonl`, and the trackers that get the same numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def start_lines(path: Path, *, done: int) -> None:
    """Prepare `path` for the steps after `done`: later lines, of steps that a kill undid, are cut off."""
    kept: list[str] = []
    if done and path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= done:
                    kept.append(line)
            except (ValueError, KeyError):
                break  # the line that the kill cut short
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def add_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON object to `path`."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values, ensure_ascii=False) + "\n")
