"""What the tests of every task do: write rows, and train whole as well as stopped and continued."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from peftlab import train

STOPPED_IN = 16


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write `rows` to `path` as JSON lines; return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def train_whole_and_stopped(recipe: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Train in one go, and stopped in step 16 and continued; both runs, whose weights and predictions are equal."""
    from peftlab.training import loop

    whole, stopped = folder / "whole", folder / "stopped"
    assert train.main([recipe, f"run.dir={whole}"]) == 0
    update, steps = loop._update, []

    def stop(*given: Any) -> Any:
        steps.append(1)
        if len(steps) == STOPPED_IN:
            raise KeyboardInterrupt
        return update(*given)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_update", stop)
        assert train.main([recipe, f"run.dir={stopped}"]) != 0
    assert train.main(["--resume", str(stopped)]) == 0
    for file in sorted((whole / "trained").glob("*.safetensors")):
        assert file.read_bytes() == (stopped / "trained" / file.name).read_bytes(), file.name
    assert (whole / "predictions.jsonl").read_bytes() == (stopped / "predictions.jsonl").read_bytes()
    return whole, stopped
