"""A file of one line a row that goes on after a kill: no row is answered twice, none is lost.

While it grows, `<name>.progress` beside it says what it is made of; it goes when the file is whole. A last line without
its end, which a kill may leave, is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from peftlab.errors import UserError
from peftlab.runs.files import sync_folder, write_json


@dataclass(frozen=True)
class Continued:
    """The open file, and how many rows it already answers."""

    file: BinaryIO
    done: int


@contextmanager
def continued_file(path: Path, made_of: Mapping[str, str]) -> Iterator[Continued]:
    """Yield `path` to append lines to, each ending in a newline; flush them as often as they should survive a kill.

    `made_of` says what the lines depend on. Raises UserError where `path` is whole already, or was begun from something
    else. On an exception the file and its progress stay.
    """
    progress = path.with_name(f"{path.name}.progress")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {path.parent}")
    if path.exists() and not progress.exists():
        raise UserError(f"--out {path} already exists; name another file, or remove it")
    if progress.exists():
        _check_same(path, progress, made_of)
    write_json(progress, dict(made_of))
    with path.open("ab+") as file:
        done = _cut_to_whole_lines(file)
        yield Continued(file, done)
        file.flush()
        os.fsync(file.fileno())
    progress.unlink()
    sync_folder(path.parent)


def _check_same(path: Path, progress: Path, made_of: Mapping[str, str]) -> None:
    try:
        before = json.loads(progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if not isinstance(before, dict):
        raise UserError(f"{progress} cannot be read; remove it and {path.name} to begin anew")
    differs = [name for name in made_of if before.get(name) != made_of[name]]
    if differs:
        raise UserError(
            f"--out {path} was begun with another {' and '.join(differs)}; remove it and {progress.name} to begin "
            "anew, or name another file"
        )


def _cut_to_whole_lines(file: BinaryIO) -> int:
    """Cut what stands behind the last newline, and return the number of lines."""
    file.seek(0)
    lines = end = place = 0
    while block := file.read(1 << 20):
        lines += block.count(b"\n")
        if b"\n" in block:
            end = place + block.rindex(b"\n") + 1
        place += len(block)
    file.truncate(end)
    file.seek(end)
    return lines
