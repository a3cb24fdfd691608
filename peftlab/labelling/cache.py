"""Embeddings on disk: each list of texts is embedded once for one encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.curation.rows import Embed
from peftlab.runs.files import whole_file


def kept_on_disk(embed: Embed, folder: Path, identity: Sequence[Any]) -> Embed:
    """Return `embed` with its answers kept in `folder`; `identity`: JSON values of all that they follow from."""

    def kept(texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[np.float32]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file, save

        named = json.dumps([identity, list(texts), None if pairs is None else list(pairs)], ensure_ascii=False)
        path = folder / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}.safetensors"
        try:
            known: NDArray[np.float32] = load_file(path)["embeddings"]
            if known.shape[0] == len(texts):
                return known
        except (OSError, SafetensorError, KeyError):
            pass  # Absent, or a file that is not ours: it is written anew.
        made = embed(texts, pairs)
        with whole_file(path) as file:
            file.write(save({"embeddings": np.ascontiguousarray(made)}))
        return made

    return kept
