"""The trained part of a model on disk: what is shipped. No pickle.

A method attached through peft is saved in peft's own format and loads with plain `PeftModel.from_pretrained`; other
methods save their trained parameters by name in `trained.safetensors`.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.encoders.trainable import trained_parameters
from peftlab.encoders.virtual_tokens import read_text_only
from peftlab.errors import RunError
from peftlab.runs.files import whole_folder

if TYPE_CHECKING:
    from torch import nn

_PLAIN = "trained.safetensors"
_PEFT = "adapter_config.json"
_PEFT_WEIGHTS = "adapter_model.safetensors"


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
                # peft writes a set in the order of its hashes, which is another one in every process.
                for key in [key for key, value in vars(settings).items() if isinstance(value, set)]:
                    setattr(settings, key, sorted(getattr(settings, key)))
            with warnings.catch_warnings():
                # A method may end with modules of rank 0; peft takes their empty matrices for a broken gathering.
                warnings.filterwarnings("ignore", message=".* have invalid shape")
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


def drop_saved_module(folder: Path, name: str) -> None:
    """Take the trained module `name` out of the adapter in `folder`, where it is one of those saved beside it.

    For modules that plain libraries do not have, and whose values are kept elsewhere.
    """
    from safetensors.torch import load_file, save_file

    settings = json.loads((folder / _PEFT).read_text(encoding="utf-8"))
    if name not in (settings["modules_to_save"] or ()):
        return
    settings["modules_to_save"].remove(name)
    (folder / _PEFT).write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")
    tensors = load_file(folder / _PEFT_WEIGHTS)
    kept = {key: value for key, value in tensors.items() if name not in key.split(".")}
    save_file(kept, folder / _PEFT_WEIGHTS, metadata={"format": "pt"})


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

    from peftlab.encoders.bottleneck import register_bottleneck

    register_bottleneck()
    with warnings.catch_warnings():
        # Keys that are missing from the file, or a misspelt setting, are warnings there; here they are errors.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        warnings.filterwarnings("error", message="Unexpected keyword arguments")
        # AdaLoRA names its ranks by parameter, where LoRA names them by module; both are read.
        warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match.*lora_E")
        try:
            loaded = read_text_only(PeftModel.from_pretrained(model, str(folder), local_files_only=True))
        except (UserWarning, RuntimeError, ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise RunError(f"the adapter in {folder} does not fit the encoder: {first}") from error
    _undo_rounding(loaded, folder)
    return loaded


def _undo_rounding(model: Any, folder: Path) -> None:
    """Put the saved values into the parameters once more.

    peft makes those of a module whose rank was cut anew while loading, in the type of the frozen weight, and turns them
    to fp32 only after it has rounded what it read.
    """
    import torch
    from safetensors.torch import load_file

    saved = load_file(folder / _PEFT_WEIGHTS)
    own = {name.replace(f".{model.active_adapter}", ""): value for name, value in model.named_parameters()}
    with torch.no_grad():
        for name in saved.keys() & own.keys():
            own[name].copy_(saved[name])


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


def saved_parameters(folder: Path) -> int:
    """Return how many numbers the safetensors files below `folder` hold."""
    from safetensors import safe_open

    count = 0
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 no mapping
    return count
