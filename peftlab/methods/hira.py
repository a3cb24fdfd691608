"""HiRA: the frozen weight itself, multiplied entry by entry with a trained low-rank matrix, is the update.

W + W * (B A), with one factor 0 at the start; its rank can be that of W (Huang et al. 2025, ICLR,
openreview.net/forum?id=TwJrTz9cRS).
Trainable parameters: r (d_in + d_out) for each target module, and the head.
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
LEARNING_RATE = LearningRate(low=5e-5, default=1e-3, high=1e-1)
STARTS_AT_ENCODER = True
MERGES = True
QUANTISED = ("int8", "nf4")


class Config(LinearTargets):
    """Settings of HiRA."""

    r: Positive = 8
    """Rank of the factor."""
    dropout: Fraction = 0.1
    """Dropout on the input of the update."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.r * (d_in + d_out) for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach HiRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import HiraConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = HiraConfig(r=config.r, hira_dropout=config.dropout)
    return attach_to_linear(model, settings, anatomy, config)
