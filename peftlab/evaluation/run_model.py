"""The model of a finished run, loaded fresh."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.encoders.load import load_tokenizer
from peftlab.encoders.merging import dequantise
from peftlab.encoders.saved import load_trained
from peftlab.encoders.source import find_again
from peftlab.errors import RunError
from peftlab.recipe.plugins import load_plugin
from peftlab.runs.folder import run_recipe
from peftlab.runs.model_record import TOKENIZER, TRAINED, ModelRecord, read_model_record

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftlab.encoders.load import LoadedEncoder
    from peftlab.encoders.source import EncoderFiles
    from peftlab.recipe.records import Encoder, Recipe


@dataclass(frozen=True)
class RunModel:
    """A run's encoder with head and trained part, in evaluation mode, with what texts and logits mean to it."""

    module: nn.Module
    tokenizer: Any
    files: EncoderFiles
    encoder: Encoder
    recipe: Recipe
    record: ModelRecord


def load_run_model(folder: Path, device: torch.device, *, dequantised: bool = False) -> RunModel:
    """Load the run in `folder`; RunError or EncoderError where it is not whole, or its encoder has changed.

    `dequantised`: 8- and 4-bit weights are read back to fp32 layers, those that the adapter was trained against.
    """
    record, recipe = read_model_record(folder), run_recipe(folder)
    if record.encoder is None or recipe.encoder is None:
        raise RunError(f"the run in {folder} has no encoder: its method is {recipe.method.name}")
    known = record.encoder
    files = find_again(known.used, known.revision, known.sha256, Path(known.folder))
    # The pooling that training came to; `auto` might come out differently with other files beside the weights.
    settings = recipe.encoder.model_copy(update={"pooling": known.pooling})
    task = load_plugin("tasks", recipe.task.name)
    again = recipe.model_copy(update={"encoder": settings})
    bare = task.load_model(again, files.folder, record.labels, kept=record.kept, device=device)
    if dequantised:
        dequantise(bare.model)
    module = _with_trained_part(bare, folder / TRAINED, recipe).to(device)
    return RunModel(module, load_tokenizer(folder / TOKENIZER), files, settings, recipe, record)


def _with_trained_part(bare: LoadedEncoder, trained: Path, recipe: Recipe) -> nn.Module:
    method = load_plugin("methods", recipe.method.name)
    return load_trained(bare.model, trained, partial(method.attach, config=recipe.method.config, anatomy=bare.anatomy))


def full_precision(folder: Path, run: RunModel) -> nn.Module:
    """Return the run's model in fp32 without quantised layers, as a copy: what an adapter is merged into.

    From an 8- or 4-bit encoder these are the weights as they are read back, which the adapter was trained against; the
    encoder's own weights would be others.
    """
    import copy

    if run.encoder.load_in == "full":
        return copy.deepcopy(run.module).float()
    import torch

    return load_run_model(folder, torch.device("cpu"), dequantised=True).module.float()
