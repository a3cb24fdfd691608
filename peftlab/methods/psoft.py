"""PSOFT: a small trained rotation between the frozen leading singular vectors of a weight.

W + (alpha / r) B (R - I) A: A and B come from the singular value decomposition of W and are frozen, R is r x r,
orthogonal and scaled on both sides; it starts at the identity (openreview.net/forum?id=FSHrinMArK).
Trainable parameters: r (r - 1) / 2 + 2 r for each target module, and the head.
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
LEARNING_RATE = LearningRate(low=1e-4, default=1e-3, high=1e-1)
STARTS_AT_ENCODER = True
MERGES = True


class Config(LinearTargets):
    """Settings of PSOFT."""

    r: Positive = 32
    """Number of singular vectors; at most the smaller width of a module."""
    dropout: Fraction = 0.0
    """Dropout on the input of the update."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.r * (config.r - 1) // 2 + 2 * config.r for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach PSOFT to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import PsoftConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = PsoftConfig(
        r=config.r,
        psoft_alpha=config.r,  # a scale of 1, so that the rotation stays one
        psoft_dropout=config.dropout,
    )
    return attach_to_linear(model, settings, anatomy, config)
