"""Prefix tuning: every layer's attention also looks at trained keys and values in front of the text.

softmax(q [P_k; K]^T) [P_v; V] with P_k and P_v of v rows in each layer (Li and Liang 2021, arXiv 2101.00190; for
encoders P-tuning v2, Liu et al. 2021, arXiv 2110.07602). Each virtual token takes one of the encoder's positions.
Trainable parameters: 2 v L H for L layers of hidden width H, and the head; with `projection` p they are made by a
network of v H + (H + 1) p + (p + 1) 2 L H parameters, which is trained and not shipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from peftlab.errors import EncoderError
from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Positive, Record

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = False
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=1e-4, default=1e-2, high=1e-1)
STARTS_AT_ENCODER = False
MERGES = False
VIRTUAL_TOKENS = True
QUANTISED = ("int8", "nf4")


class Config(Record):
    """Settings of prefix tuning."""

    tokens: Positive = 16
    """Virtual tokens v in front of the keys and values of each layer."""
    projection: Positive | None = None
    """Width p of a two-layer network that makes the prefix from embeddings while training; unset: trained directly."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out."""
    made = 2 * shape.depth * shape.hidden
    if config.projection is None:
        return config.tokens * made
    return config.tokens * shape.hidden + (shape.hidden + 1) * config.projection + (config.projection + 1) * made


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach trained prefixes to the attention of `model`; EncoderError where its architecture takes none."""
    import inspect

    from peft import PrefixTuningConfig

    from peftlab.encoders.through_peft import attach_through_peft
    from peftlab.encoders.virtual_tokens import read_text_only

    encoder: Any = model.get_submodule(anatomy.encoder)
    if "past_key_values" not in inspect.signature(encoder.forward).parameters:
        raise EncoderError(
            f"prefix: the attention of {anatomy.model_type} takes no keys and values from outside; "
            f"use prompt or ptuning, or a BERT, RoBERTa or ELECTRA encoder"
        )
    settings = PrefixTuningConfig(
        num_virtual_tokens=config.tokens,
        num_transformer_submodules=1,
        num_layers=encoder.config.num_hidden_layers,
        num_attention_heads=encoder.config.num_attention_heads,
        token_dim=encoder.config.hidden_size,
        encoder_hidden_size=config.projection or encoder.config.hidden_size,  # read only with a projection
        prefix_projection=config.projection is not None,
    )
    return read_text_only(attach_through_peft(model, settings, anatomy))
