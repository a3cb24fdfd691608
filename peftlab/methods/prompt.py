"""Prompt tuning: trained embeddings stand in front of the text.

The encoder reads [P; X] with P of v trained rows; the head pools the text alone (Lester et al. 2021, arXiv 2104.08691).
Each virtual token takes one of the encoder's positions.
Trainable parameters: v E for embeddings of width E, and the head.
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
LEARNING_RATE = LearningRate(low=1e-4, default=1e-2, high=3e-1)
STARTS_AT_ENCODER = False
MERGES = False
VIRTUAL_TOKENS = True
QUANTISED = ("int8", "nf4")


class Config(Record):
    """Settings of prompt tuning."""

    tokens: Positive = 16
    """Virtual tokens v in front of each text."""
    init: Literal["vocabulary", "random"] = "vocabulary"
    """Start from embeddings of tokens drawn from the vocabulary, or from a standard normal distribution."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out."""
    return config.tokens * shape.embedding


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Put trained embeddings in front of every text; EncoderError for an architecture's own head."""
    from peft import PromptTuningConfig

    from peftlab.encoders.through_peft import attach_through_peft
    from peftlab.encoders.virtual_tokens import read_text_only, refuse_native_head

    refuse_native_head(model, "prompt", anatomy)
    encoder: Any = model.get_submodule(anatomy.encoder).config
    settings = PromptTuningConfig(
        num_virtual_tokens=config.tokens,
        num_transformer_submodules=1,
        num_layers=encoder.num_hidden_layers,
        num_attention_heads=encoder.num_attention_heads,
        token_dim=getattr(encoder, "embedding_size", encoder.hidden_size),
        prompt_tuning_init="SAMPLE_VOCAB" if config.init == "vocabulary" else "RANDOM",
    )
    return read_text_only(attach_through_peft(model, settings, anatomy))
