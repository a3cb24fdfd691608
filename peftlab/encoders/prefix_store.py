"""What frozen layers gave for each text, kept on disk for later epochs, seeds and runs.

``<root>/<key>/<segment>.safetensors`` holds for some texts `digests` [texts, 16], `starts` [texts + 1] and `states`
[tokens, hidden size], without padding. The key names everything on which the states depend but the text: encoder,
layer, type, version and processor; a text is known by its token ids, so that another tokenizer makes it another text. A
segment is whole or absent and never changes: any number of processes may read and add at a time, also after a crash;
two that compute the same text keep it twice. Segments are mapped into memory, not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.runs.files import whole_file, write_json

ROOT_VARIABLE = "PEFTLAB_CACHE"
"""Environment variable with the folder of cached states, instead of ``~/.cache/peftlab``."""
PENDING_BYTES = 64 * 2**20
"""States kept in memory before they are written as a segment."""
_ENDING = ".safetensors"
_ABOUT = "about.json"


def cache_folder(part: str) -> Path:
    """Return the folder of one kind of what is kept between runs."""
    return Path(os.environ.get(ROOT_VARIABLE) or Path.home() / ".cache" / "peftlab") / part


def cache_root() -> Path:
    """Return the folder under which cached states lie."""
    return cache_folder("prefix")


@dataclass(frozen=True)
class Kept:
    """One key of the cache: its folder, what it belongs to, its texts and bytes."""

    folder: Path
    about: dict[str, Any]
    texts: int
    size: int


def kept_states(root: Path) -> list[Kept]:
    """Return what lies under `root`, largest first."""
    found = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if (folder / _ABOUT).is_file():
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            texts = sum(_header(path)[0]["digests"]["shape"][0] for path in folder.glob(f"*{_ENDING}"))
            found.append(Kept(folder, about, texts, folder_bytes(folder)))
    return sorted(found, key=lambda kept: -kept.size)


def clear_states(root: Path, chosen: Callable[[Kept], bool]) -> int:
    """Delete the chosen keys and return the bytes freed; a run that has them mapped goes on undisturbed."""
    freed = 0
    for kept in kept_states(root):
        if chosen(kept):
            shutil.rmtree(kept.folder)
            freed += kept.size
    return freed


class PrefixStore:
    """States of one key: found by digest, added, and written in segments within a budget of disk space.

    `say` gets one sentence when the budget is used up; from then on nothing is added, and `find` returns None for what
    is not there.
    """

    def __init__(self, root: Path, about: dict[str, Any], budget: int, say: Callable[[str], None]) -> None:
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        self.folder, self._root, self._budget, self._say = root / name, root, budget, say
        self._segments: list[NDArray[Any]] = []
        self._places: dict[bytes, tuple[int, int, int]] = {}
        self._pending: dict[bytes, NDArray[Any]] = {}
        self._pending_bytes = 0
        self._full = False
        self.found = self.missed = 0
        if not (self.folder / _ABOUT).is_file():
            write_json(self.folder / _ABOUT, about)
        for path in sorted(self.folder.glob(f"*{_ENDING}")):
            self._map(path)

    def find(self, digest: bytes) -> NDArray[Any] | None:
        """Return the states [tokens, hidden size] of a text; None where they are not kept."""
        place = self._places.get(digest)
        if place is not None:
            self.found += 1
            segment, start, end = place
            return self._segments[segment][start:end]
        states = self._pending.get(digest)
        self.found += states is not None
        self.missed += states is None
        return states

    def add(self, digest: bytes, states: NDArray[Any]) -> None:
        """Keep the states of a text, if the budget allows."""
        if self._full or digest in self._places or digest in self._pending:
            return
        self._pending[digest] = states
        self._pending_bytes += states.nbytes
        if self._pending_bytes >= PENDING_BYTES:
            self.write()

    def write(self) -> None:
        """Write what was added as one segment, or say that the budget is used up."""
        if not self._pending:
            return
        if self._full or folder_bytes(self._root) + self._pending_bytes > self._budget:
            self._full = True
            self._say(
                f"the frozen-prefix cache is full at {self._budget / 1e9:g} GB (train.cache_gb): what is not in it is "
                "computed anew each time; clear it with `peftlab cache --clear`, or raise the budget"
            )
        else:
            path = self.folder / f"{uuid.uuid4().hex}{_ENDING}"
            _write_segment(path, list(self._pending), list(self._pending.values()))
            self._map(path)
        self._pending, self._pending_bytes = {}, 0

    def _map(self, path: Path) -> None:
        try:
            header, offset = _header(path)
            parts = {
                name: np.memmap(path, _TYPES[of["dtype"]], "r", offset + of["data_offsets"][0], tuple(of["shape"]))
                for name, of in header.items()
                if name != "__metadata__"
            }
        except FileNotFoundError:  # cleared by somebody else since it was listed
            return
        starts = parts["starts"].tolist()
        self._segments.append(parts["states"])
        for place, digest in enumerate(np.asarray(parts["digests"])):
            self._places[digest.tobytes()] = (len(self._segments) - 1, starts[place], starts[place + 1])


_TYPES = {"U8": np.uint8, "I64": np.int64, "F32": np.float32, "I16": np.int16}


def _write_segment(path: Path, digests: Sequence[bytes], states: Sequence[NDArray[Any]]) -> None:
    from safetensors.numpy import save

    starts = np.concatenate([[0], np.cumsum([len(one) for one in states])]).astype(np.int64)
    names = np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(save({"digests": names, "starts": starts, "states": np.concatenate(states)}))


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file and where its tensors begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    return header, 8 + length


def folder_bytes(folder: Path) -> int:
    """Return the bytes of the files below `folder`; what another process removes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total
