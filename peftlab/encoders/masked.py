"""An encoder with its masked-language-model head, which is computed at the predicted positions only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import MaskedLMOutput

from peftlab.encoders.anatomy import Anatomy
from peftlab.encoders.load import anatomy_of, quiet_loading, sentences_for
from peftlab.errors import EncoderError


def _distilbert(model: Any, hidden: Tensor) -> Tensor:
    logits: Tensor = model.vocab_projector(model.vocab_layer_norm(model.activation(model.vocab_transform(hidden))))
    return logits


def _electra(model: Any, hidden: Tensor) -> Tensor:
    logits: Tensor = model.generator_lm_head(model.generator_predictions(hidden))
    return logits


_HEADS: Mapping[str, Callable[[Any, Tensor], Tensor]] = {
    "bert": lambda model, hidden: model.cls(hidden),
    "ernie": lambda model, hidden: model.cls(hidden),
    "roberta": lambda model, hidden: model.lm_head(hidden),
    "xlm-roberta": lambda model, hidden: model.lm_head(hidden),
    "camembert": lambda model, hidden: model.lm_head(hidden),
    "albert": lambda model, hidden: model.predictions(hidden),
    "distilbert": _distilbert,
    "electra": _electra,
}
"""Logits over the vocabulary from hidden states, by architecture."""


class MaskedLanguageModel(nn.Module):
    """A transformers masked language model whose head sees the predicted positions and nothing else.

    With 15 % of the positions predicted, the product with the vocabulary, the largest of a small encoder, is computed
    for these alone.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config: Any = model.config

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        attention_mask: Tensor | None = None,
        **ignored: Any,  # noqa: ARG002 what peft hands on to every model
    ) -> MaskedLMOutput:
        """Return logits [rows, predictions, vocabulary] at `positions` [rows, predictions] of `input_ids`."""
        body = getattr(self.model, self.model.base_model_prefix)
        hidden = body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        there = hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return MaskedLMOutput(logits=_HEADS[self.config.model_type](self.model, there))


@dataclass(frozen=True)
class Masked:
    """A masked language model, nothing frozen yet, with the names of its parts."""

    model: MaskedLanguageModel
    anatomy: Anatomy


def new_masked(config: Any) -> Masked:
    """Return a masked language model of this transformers `config` with random weights."""
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_config(config)
    names = {"missing_keys": {f"model.{name}" for name, _ in model.named_parameters()}}
    return _masked(model, names)


def load_masked(folder: Path, *, dropout: float) -> Masked:
    """Load the encoder in `folder` with its masked-language-model head, a new one where the folder has none.

    `dropout` takes the place of the dropout that the folder states. Raises EncoderError where the folder cannot be read
    or the architecture has no known head.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM

    with sentences_for(folder), quiet_loading():
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in _HEADS:
            raise EncoderError(
                f"{folder}: peftlab pretrains encoders of the types {', '.join(_HEADS)}, not {config.model_type}"
            )
        set_dropout(config, dropout)
        model, info = AutoModelForMaskedLM.from_pretrained(
            folder, config=config, output_loading_info=True, local_files_only=True, dtype=torch.float32
        )
    return _masked(model, {"missing_keys": {f"model.{name}" for name in info["missing_keys"]}})


def set_dropout(config: Any, dropout: float) -> None:
    """Set every dropout that a transformers `config` of an encoder states."""
    for field in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, field):
            setattr(config, field, dropout)


def _masked(model: Any, info: dict[str, Any]) -> Masked:
    wrapped = MaskedLanguageModel(model)
    prefix = f"model.{model.base_model_prefix}"
    outside = tuple(
        f"model.{name}"
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    )
    missing = tuple(info["missing_keys"])
    # A head that came with the checkpoint stays as it is; only what is new must be trained with a method.
    new = tuple(name for name in outside if any(key.startswith(f"{name}.") for key in missing))
    return Masked(wrapped, anatomy_of(wrapped, prefix, new, info))
