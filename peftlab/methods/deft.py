"""DEFT: a trained direction is taken out of the weight, and a trained matrix put in its place.

(I - P relu(P)^T) W + P R, or with an orthonormal Q of P: (I - Q Q^T) W + Q R; R starts so that nothing changes (as in
the documentation of peft 0.21, which names no paper).
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
LEARNING_RATE = LearningRate(low=5e-5, default=5e-4, high=1e-2)
STARTS_AT_ENCODER = True
MERGES = True


class Config(LinearTargets):
    """Settings of DEFT."""

    r: Positive = 8
    """Number of directions."""
    decomposition: Literal["relu", "qr"] = "relu"
    """How the directions are taken out."""
    dropout: Fraction = 0.0
    """Dropout on the input of the update."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.r * (d_in + d_out) for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach DEFT to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import DeftConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = DeftConfig(r=config.r, decomposition_method=config.decomposition, deft_dropout=config.dropout)
    return attach_to_linear(model, settings, anatomy, config)
