"""Give every dimension of an encoder's last hidden states mean 0 and variance 1, by its last normalisation alone.

Encoders trained on masks or contrasts put most of their states' length into a direction that all texts share
(Ethayarajh 2019, arXiv 1909.00512). Dropout on such states is noise in the logits, and a new head must first learn to
leave the shared part out. The last layer norm scales and shifts each dimension anyway, so that its weights can say the
same states without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peftlab.errors import EncoderError


@dataclass(frozen=True)
class _Places:
    """Where the last normalisation stands in the body, and the linear layer of the head that reads the states."""

    norm: Callable[[Any], Any]
    reader: Callable[[Any], Any]


def _bert_norm(body: Any) -> Any:
    return body.encoder.layer[-1].output.LayerNorm


_BERT = _Places(_bert_norm, lambda model: model.cls.predictions.transform.dense)
_ROBERTA = _Places(_bert_norm, lambda model: model.lm_head.dense)
_PLACES: Mapping[str, _Places] = {
    "bert": _BERT,
    "ernie": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _Places(
        lambda body: body.transformer.layer[-1].output_layer_norm, lambda model: model.vocab_transform
    ),
    "electra": _Places(_bert_norm, lambda model: model.generator_predictions.dense),
}


def check_standardisable(model_type: str) -> None:
    """Raise EncoderError where this architecture has no last normalisation of its own."""
    if model_type not in _PLACES:
        raise EncoderError(
            f"save.standardise: encoders of the types {', '.join(_PLACES)} have a last normalisation of their own, "
            f"{model_type} has not; remove the key"
        )


def standardise(model: Any, mean: Tensor, deviation: Tensor) -> None:
    """Change a transformers masked language model so that its last states h become (h - mean) / deviation.

    `mean`, `deviation`: [width]. The head reads the new states as it read the old ones: its logits stay the same.
    """
    places = _PLACES[model.config.model_type]
    norm, reader = places.norm(getattr(model, model.base_model_prefix)), places.reader(model)
    with torch.no_grad():
        norm.weight.div_(deviation)
        norm.bias.sub_(mean).div_(deviation)
        reader.bias.add_(reader.weight @ mean)
        reader.weight.mul_(deviation)
