"""An encoder that reads answers: two logits a token, and the threshold below which no answer is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peftlab.encoders.load import HeadShape, LoadedEncoder, load_native
from peftlab.encoders.token_head import trained_module

if TYPE_CHECKING:
    from peftlab.recipe.records import Encoder

THRESHOLD = "no_answer"
"""The module of the threshold."""


class Threshold(nn.Module):
    """One number that no gradient reaches: it is fitted on validation rows, and saved with the head."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))


def load_reader(encoder: Encoder, folder: Path, dropout: float, *, device: torch.device | None = None) -> LoadedEncoder:
    """Load the encoder in `folder` with a logit a token for the start of an answer and one for its end.

    The head is drawn from torch's global generator; the threshold starts at 0. Raises as `load_classifier`.
    """
    from transformers import AutoModelForTokenClassification

    loaded = load_native(encoder, folder, HeadShape(2, dropout), AutoModelForTokenClassification, device=device)
    model: Any = loaded.model
    model.config.id2label, model.config.label2id = {0: "start", 1: "end"}, {"start": 0, "end": 1}
    model.add_module(THRESHOLD, Threshold())
    if encoder.load_in != "full" and device is not None:
        model.get_submodule(THRESHOLD).to(device)
    anatomy = replace(
        loaded.anatomy,
        head=(*loaded.anatomy.head, THRESHOLD),
        new_modules=(*loaded.anatomy.new_modules, THRESHOLD),
        peft_task="TOKEN_CLS",
    )
    return replace(loaded, anatomy=anatomy)


def threshold_of(model: nn.Module) -> float:
    """Return the threshold of a model of `load_reader`, whatever wraps it."""
    return float(trained_module(model, THRESHOLD).value.detach())


def set_threshold(model: nn.Module, value: float) -> None:
    """Write `value` into a model of `load_reader`, whatever wraps it."""
    with torch.no_grad():
        trained_module(model, THRESHOLD).value.fill_(value)
