"""Checkpoints of the whole training state, without pickle, from which a run continues to the same bits.

`checkpoints/step-N/` holds the state after optimizer step N: trained weights, optimizer, random generators of every
process, what the method keeps, and the progress record. `checkpoints/best-N/` holds the trained weights of the best
validation. A folder is complete or absent; the newest complete one counts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.encoders.trainable import trained_parameters
from peftlab.errors import RunError
from peftlab.runs.files import whole_folder, write_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `step` optimizer steps.

    `best_step` and `best_value`: the best validation so far, `best_metrics` all that it measured. `stale`: validations
    since then. `tokens`, `seconds`, `cpu_seconds`: spent so far, over all sittings. `micro_rows`: rows of one forward
    pass.
    """

    step: int
    micro_rows: int
    best_step: int | None = None
    best_value: float | None = None
    best_metrics: Mapping[str, float] | None = None
    stale: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to continue. `random` holds one record a process, `identity` what must not have changed.

    `extra` holds the state of the fp16 scaler and of the method's hooks, each None where there is none.
    """

    progress: Progress
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    random: tuple[Mapping[str, Tensor], ...]
    extra: Mapping[str, Any]
    identity: Mapping[str, Any]


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of this process's generators that training draws from (dropout, on CPU and GPU)."""
    import torch

    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what `random_state` returned."""
    import torch

    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoints/step-N` under `folder`, then remove older states and best weights that it does not name."""
    from safetensors.torch import save_file

    progress = checkpoint.progress
    tensors: dict[str, Tensor] = {}
    tree = {
        "format": FORMAT,
        "progress": asdict(progress),
        "identity": dict(checkpoint.identity),
        "optimizer": _flatten(checkpoint.optimizer, "optimizer", tensors),
        "random": _flatten(list(checkpoint.random), "random", tensors),
        "extra": _flatten(checkpoint.extra, "extra", tensors),
    }
    with whole_folder(folder / f"step-{progress.step}") as target:
        save_file(_plain(checkpoint.weights), target / "trained.safetensors")
        save_file(_plain(tensors), target / "state.safetensors")
        write_json(target / "state.json", tree)
    for path in folder.iterdir():
        kind, _, number = path.name.partition("-")
        stale = (kind == "step" and number != str(progress.step)) or (
            kind == "best" and number != str(progress.best_step)
        )
        if stale or path.name.startswith("."):
            shutil.rmtree(path, ignore_errors=True)


def save_best(folder: Path, step: int, model: nn.Module) -> None:
    """Write the trained weights of the best validation so far to `checkpoints/best-N` under `folder`.

    The former best stays until the next `save_checkpoint`: a run killed in between continues from the state that names
    it.
    """
    from safetensors.torch import save_file

    with whole_folder(folder / f"best-{step}") as target:
        save_file(_plain(trained_parameters(model)), target / "trained.safetensors")


def load_weights(path: Path, model: nn.Module) -> None:
    """Put the trained weights in the folder `path` into `model`; RunError where the names differ."""
    import torch
    from safetensors.torch import load_file

    saved = load_file(path / "trained.safetensors")
    own = trained_parameters(model)
    if saved.keys() != own.keys():
        missing, surplus = sorted(own.keys() - saved.keys())[:3], sorted(saved.keys() - own.keys())[:3]
        raise RunError(f"{path} does not fit this recipe's model: it lacks {missing} and has {surplus} besides")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete state under `folder`, or None."""
    states = [path for path in folder.glob("step-*") if (path / "state.json").is_file()] if folder.is_dir() else []
    return max(states, key=lambda path: int(path.name.partition("-")[2]), default=None)


def saved_progress(folder: Path) -> Progress | None:
    """Return how far the newest complete state under `folder` is, or None where there is none."""
    path = last_checkpoint(folder)
    if path is None:
        return None
    return Progress(**json.loads((path / "state.json").read_text(encoding="utf-8"))["progress"])


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> Checkpoint:
    """Read the state in `path`; RunError where it belongs to another recipe, data set or number of processes."""
    from safetensors.torch import load_file

    tree = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if tree["format"] != FORMAT:
        raise RunError(
            f"{path} has checkpoint format {tree['format']}; this version reads {FORMAT}; start the run anew"
        )
    changed = [key for key, value in identity.items() if tree["identity"].get(key) != value]
    if changed:
        was = "; ".join(f"{key} was {tree['identity'].get(key)}, is {identity[key]}" for key in changed)
        raise RunError(f"{path} cannot be continued, since {was}; put it back, or start a new run in another run.dir")
    tensors = load_file(path / "state.safetensors")
    return Checkpoint(
        progress=Progress(**tree["progress"]),
        weights=load_file(path / "trained.safetensors"),
        optimizer=_unflatten(tree["optimizer"], tensors),
        random=tuple(_unflatten(tree["random"], tensors)),
        extra=_unflatten(tree["extra"], tensors),
        identity=tree["identity"],
    )


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` as JSON, its tensors moved into `tensors`; dictionaries become pairs: keys may be numbers."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _flatten(item, f"{path}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {
            "tuple" if isinstance(value, tuple) else "list": [
                _flatten(item, f"{path}.{place}", tensors) for place, item in enumerate(value)
            ]
        }
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold {path} of type {type(value).__name__}")


def _unflatten(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "pairs" in tree:
        return {key: _unflatten(item, tensors) for key, item in tree["pairs"]}
    if "tuple" in tree:
        return tuple(_unflatten(item, tensors) for item in tree["tuple"])
    return [_unflatten(item, tensors) for item in tree["list"]]
