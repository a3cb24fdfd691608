"""`decoding.safetensors`: what makes answers of an export's logits, where its labels alone do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import RunError
from peftlab.runs.certificate import DECODING

Decoding = Mapping[str, NDArray[np.float32]]
"""Arrays by name, as a task's `decoding` gives them; none for a task whose logits are its answers."""


def write_decoding(folder: Path, decoding: Decoding) -> None:
    """Write `decoding.safetensors` into the export's folder; nothing where there is nothing to write."""
    from safetensors.numpy import save_file

    if decoding:
        save_file({name: np.ascontiguousarray(values) for name, values in decoding.items()}, folder / DECODING)


def read_decoding(folder: Path) -> Decoding:
    """Return what `write_decoding` wrote; RunError where the file is broken."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / DECODING
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be read ({type(error).__name__}); restore it, or export the run again"
        ) from error


def same_decoding(one: Decoding, other: Decoding) -> bool:
    """Say whether two decodings hold the same values under the same names."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
