"""P-tuning: embeddings in front of the text are made by a small trained network, of which only they are shipped.

The encoder reads [f(P); X] with f of three linear layers and P of v trained rows; the head pools the text alone (Liu et
al. 2021, arXiv 2103.10385). Each virtual token takes one of the encoder's positions.
Trainable parameters: v E + (E + 1) h + (h + 1) (h + E) for embeddings of width E and a network of width h, and the
head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Positive, Record

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = False
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=1e-4, default=3e-3, high=1e-1)
STARTS_AT_ENCODER = False
MERGES = False
VIRTUAL_TOKENS = True
QUANTISED = ("int8", "nf4")


class Config(Record):
    """Settings of P-tuning."""

    tokens: Positive = 16
    """Virtual tokens v in front of each text."""
    width: Positive = 128
    """Width h of the network that makes them."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out."""
    network = (shape.embedding + 1) * config.width + (config.width + 1) * (config.width + shape.embedding)
    return config.tokens * shape.embedding + network


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Put embeddings made by a trained network in front of every text; EncoderError for an architecture's own head."""
    from peft import PromptEncoderConfig

    from peftlab.encoders.through_peft import attach_through_peft
    from peftlab.encoders.virtual_tokens import read_text_only, refuse_native_head

    refuse_native_head(model, "ptuning", anatomy)
    encoder: Any = model.get_submodule(anatomy.encoder).config
    settings = PromptEncoderConfig(
        num_virtual_tokens=config.tokens,
        num_transformer_submodules=1,
        num_layers=encoder.num_hidden_layers,
        num_attention_heads=encoder.num_attention_heads,
        token_dim=getattr(encoder, "embedding_size", encoder.hidden_size),
        encoder_hidden_size=config.width,
    )
    return read_text_only(attach_through_peft(model, settings, anatomy))
