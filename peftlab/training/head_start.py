"""The head's start from a probe, solved once for the same frozen encoder, rows and arithmetic, and kept on disk.

Every method, learning rate and rung that starts from the same rows starts from the same head: embedding the rows and
six regressions are spared from the second run on. What is kept is known by everything that it follows from, so that a
run with it trains to the same bits as the run without.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peftlab.data.rows import SplitName
from peftlab.data.tokens import Tokens
from peftlab.encoders.anatomy import unwrapped
from peftlab.encoders.prefix_store import cache_folder, folder_bytes
from peftlab.runs.code import code_hash
from peftlab.runs.environment import versions
from peftlab.runs.files import whole_file
from peftlab.training.linear_probe import STRENGTHS, Probe, linear_head, write_head
from peftlab.training.outcome import Sitting
from peftlab.training.solve_probe import probe_head

if TYPE_CHECKING:
    from peftlab.training.prepare import Found, Model

FOLDER = "heads"
_ENDING = ".safetensors"


def start_from_probe(found: Found, model: Model, tokens: Mapping[SplitName, Tokens], sitting: Sitting) -> None:
    """Write the probe's solution into the head of `model`, and say where it is from.

    The start of LP-FT (Kumar et al. 2022). Raises EncoderError for an architecture's own head.
    """
    linear_head(model.module)
    place = sitting.placement
    path = cache_folder(FOLDER) / f"{_key(found, model, tokens, sitting)}{_ENDING}"
    solved, source = _kept(path), ", solved by an earlier run on these rows"
    if solved is None:
        with place.autocast():  # a start only: training moves on from it in the same arithmetic
            solved, source = probe_head(found, model, tokens, sitting), ""
        if place.is_main:
            _keep_for_later(path, solved, found, sitting)
    else:
        write_head(model.module, solved.weight, solved.bias)
    if place.is_main:
        sitting.console.print(
            f"head starts from the probe: C = {solved.c:g}, chosen at validation accuracy {solved.accuracy:.4f}{source}"
        )


def _keep_for_later(path: Path, solved: Probe, found: Found, sitting: Sitting) -> None:
    """Keep the solution within the budget; a folder that cannot be written to costs later runs time, not this one."""
    recipe = found.recipe
    try:
        if folder_bytes(path.parent) < recipe.train.cache_gb * 1e9:
            _keep(path, solved, recipe.encoder.name if recipe.encoder is not None else "")
    except OSError as error:
        sitting.say(
            f"the head's start could not be kept in {path.parent} ({error.strerror}), so that the next run solves it "
            "again; make the folder writable, or set PEFTLAB_CACHE to another one"
        )


@dataclass(frozen=True)
class KeptHead:
    """One solution on disk, the encoder that it belongs to, and its bytes."""

    path: Path
    encoder: str
    size: int


def kept_heads() -> list[KeptHead]:
    """Return the solutions that are kept."""
    from safetensors import SafetensorError, safe_open

    found = []
    for path in sorted(cache_folder(FOLDER).glob(f"*{_ENDING}")):
        try:
            with safe_open(path, framework="numpy") as file:
                encoder = file.metadata()["encoder"]
            found.append(KeptHead(path, encoder, path.stat().st_size))
        except (OSError, SafetensorError, KeyError):  # cleared by somebody else since it was listed, or not ours
            continue
    return found


def _key(found: Found, model: Model, tokens: Mapping[SplitName, Tokens], sitting: Sitting) -> str:
    """Return a digest of everything on which the solution depends, to the last bit."""
    import torch

    recipe, splits, place, files = found.recipe, found.splits, sitting.placement, found.files
    encoder = recipe.encoder
    if encoder is None or files is None:
        raise AssertionError("a head that starts from a probe has an encoder")
    follows_from = {
        "encoder": files.sha256,
        "settings": [unwrapped(model.module).pooling, encoder.load_in, encoder.stored_as],
        "task": [recipe.task.name, splits.multi_label, list(splits.label_names)],
        "rows": [found.own_rows, found.validates, recipe.train.seed, list(STRENGTHS)],
        "batch": recipe.evaluation.batch_size,
        "place": [place.device.type, place.precision, place.threads, torch.backends.cpu.get_cpu_capability()],
        "machine": platform.machine(),
        "versions": versions(),
        "code": code_hash("probe", recipe.task.name),
    }
    digest = hashlib.sha256(json.dumps(follows_from, sort_keys=True, ensure_ascii=False).encode())
    weights = splits.train.weights
    for name in ("train", "validation"):
        own, rows = tokens[name], getattr(splits, name)
        for array in (own.ids, own.segments, own.starts, np.asarray(rows.labels)):
            digest.update(b"|" if array is None else np.ascontiguousarray(array).tobytes())
    digest.update(b"|" if weights is None else np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()[:32]


def _kept(path: Path) -> Probe | None:
    """Return the solution in `path`; None where there is none that can be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata()
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
        return Probe(weight, bias, float(about["c"]), float(about["accuracy"]))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _keep(path: Path, solved: Probe, encoder: str) -> None:
    from safetensors.numpy import save

    about: dict[str, Any] = {"c": repr(solved.c), "accuracy": repr(solved.accuracy), "encoder": encoder}
    tensors = {"weight": np.ascontiguousarray(solved.weight), "bias": np.ascontiguousarray(solved.bias)}
    with whole_file(path) as file:
        file.write(save(tensors, about))
