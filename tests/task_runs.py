"""What the tests of every task do: write rows, and train whole as well as stopped and continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from peftlab import train

STOPPED_IN = 16


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write `rows` to `path` as JSON lines; return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_splits(
    folder: Path,
    rows_from: Callable[[int, int], Any],
    held_out: tuple[int, int],
    write: Callable[[Path, Any], Path],
    ending: str = ".jsonl",
) -> dict[str, Path]:
    """Write 56 training rows and as many validation and test rows as said by `write(path, rows)`; return the files.

    `rows_from(count, start)` gives that many rows, other ones from every start.
    """
    made = zip(("train", "validation", "test"), (56, *held_out), (0, 100, 200), strict=True)
    return {split: write(folder / (split + ending), rows_from(rows, start)) for split, rows, start in made}


def task_recipe(
    path: Path, files: Mapping[str, Path], *, encoder: str, task: str, method: str, data: str | None
) -> Path:
    """Write a recipe of four short epochs in one thread; return its path.

    `encoder`, `task` and `data` are the lines of these sections; the last are the `files` where there are none.
    """
    named = "\n".join(f'{split} = "{file}"' for split, file in files.items())
    path.write_text(
        f'[encoder]\n{encoder}\n\n[task]\n{task}\n\n[data]\n{data or named}\n\n[method]\nname = "{method}"\n\n'
        '[train]\nepochs = 4\nbatch_size = 8\nprecision = "fp32"\nthreads = 1\n\n'
        "[run]\ntrackers = []\ncheckpoint_every = 3\n",
        encoding="utf-8",
    )
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
