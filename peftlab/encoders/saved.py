"""The trained part of a model on disk: what is shipped. No pickle.

A method attached through peft is saved in peft's own format and loads with plain `PeftModel.from_pretrained`; other
methods save their trained parameters by name in `trained.safetensors`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.encoders.trainable import trained_parameters
from peftlab.errors import RunError
from peftlab.runs.files import whole_folder

if TYPE_CHECKING:
    from torch import nn

_PLAIN = "trained.safetensors"
_PEFT = "adapter_config.json"


def save_trained(model: nn.Module, folder: Path, *, encoder_name: str) -> int:
    """Write the trained part of `model` to `folder`, whole or not at all, and return its size in bytes.

    `encoder_name` is what the file names as its base model. Opens no socket.
    """
    from peft import PeftModel
    from safetensors.torch import save_file

    with whole_folder(folder) as target:
        if isinstance(model, PeftModel):
            for settings in model.peft_config.values():
                settings.base_model_name_or_path = encoder_name
            # "auto" would ask the hub whether the vocabulary grew.
            model.save_pretrained(str(target), safe_serialization=True, save_embedding_layers=False)
            (target / "README.md").unlink(missing_ok=True)  # peft's empty template; the run has its own card
        else:
            tensors = {
                name: parameter.detach().cpu().contiguous() for name, parameter in trained_parameters(model).items()
            }
            save_file(tensors, target / _PLAIN, metadata={"format": "pt"})
    return folder_bytes(folder)


def load_trained(model: nn.Module, folder: Path, attach: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Return `model` (a fresh encoder and head) with the trained part in `folder`, in evaluation mode.

    `attach` is the method's own; it is used where the part is not in peft's format. Raises RunError where the folder
    does not fit the model, also where peft would only warn and go on with random weights.
    """
    if (folder / _PEFT).is_file():
        return _load_through_peft(model, folder).eval()
    return _load_plain(attach(model), folder).eval()


def saved_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the parameters in `trained.safetensors`; none where the part is in peft's format."""
    from safetensors import safe_open

    path = folder / _PLAIN
    if not path.is_file():
        return ()
    with safe_open(path, framework="pt") as file:
        return tuple(file.keys())


def _load_through_peft(model: nn.Module, folder: Path) -> nn.Module:
    from peft import PeftModel

    with warnings.catch_warnings():
        # Keys that are missing from the file, or a misspelt setting, are warnings there; here they are errors.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        warnings.filterwarnings("error", message="Unexpected keyword arguments")
        try:
            return PeftModel.from_pretrained(model, str(folder), local_files_only=True)
        except (UserWarning, RuntimeError, ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise RunError(f"the adapter in {folder} does not fit the encoder: {first}") from error


def _load_plain(model: nn.Module, folder: Path) -> nn.Module:
    import torch
    from safetensors.torch import load_file

    path = folder / _PLAIN
    if not path.is_file():
        raise RunError(
            f"{folder} holds no trained part: expected {_PEFT} or {_PLAIN}; train again, or restore the folder"
        )
    saved, own = load_file(path), trained_parameters(model)
    if saved.keys() != own.keys():
        raise RunError(f"{path} does not fit the recipe's model: {sorted(saved.keys() ^ own.keys())[:3]} differ")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])
    return model


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
