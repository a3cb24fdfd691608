"""MiSS: one small trained matrix, shared by all slices of the input, is the update.

h = W x + D^T S x; S sums every r-th entry of x, and D: r x d_out starts at 0 (Kang and Yin 2024, arXiv 2409.15371).
It was called Bone in earlier versions of peft.
Trainable parameters: r d_out for each target module, and the head.
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
LEARNING_RATE = LearningRate(low=5e-5, default=5e-4, high=1e-2)
STARTS_AT_ENCODER = True
MERGES = True
QUANTISED = ("int8", "nf4")


class Config(LinearTargets):
    """Settings of MiSS."""

    r: Positive = 16
    """Slices of the input that are told apart; at most its width."""
    dropout: Fraction = 0.0
    """Dropout on the input of the update."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.r * d_out for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach MiSS to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import MissConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = MissConfig(r=config.r, miss_dropout=config.dropout)
    return attach_to_linear(model, settings, anatomy, config)
