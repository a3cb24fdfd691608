"""TinyLoRA: a handful of numbers a module, spread by frozen random matrices over leading singular vectors.

W + U S (sum over i of v_i P_i) V^T with U, S, V the rank-r singular value decomposition of W, P_i random and frozen, v
trained (arXiv 2602.04118).
Trainable parameters: u for each target module, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Fraction, LinearTargets, Positive

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = False
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=1e-4, default=5e-3, high=1e-1)
STARTS_AT_ENCODER = True
MERGES = True


class Config(LinearTargets):
    """Settings of TinyLoRA."""

    u: Positive = 64
    """Trained numbers of each module."""
    r: Positive = 2
    """Rank of the frozen decomposition."""
    dropout: Fraction = 0.0
    """Dropout on the input of the update."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    return config.u * len(shape.linear(config.target_modules, config.layers))


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach TinyLoRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import TinyLoraConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = TinyLoraConfig(r=config.r, u=config.u, tinylora_dropout=config.dropout)
    return attach_to_linear(model, settings, anatomy, config)
