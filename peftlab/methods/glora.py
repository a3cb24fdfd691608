"""GLoRA: weight and bias are scaled and shifted by trained low-rank matrices and numbers.

W + W A + B and b + b D + E + W C, where A, B: d_out x d_in and C: d_in x 1 are low-rank or vectors, D and E numbers
(Chavan et al. 2023, arXiv 2306.07967); nothing changes at the start.
Trainable parameters: with the defaults 2 r (d_in + d_out) + r (d_in + 1) + 2 for each target module, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import LinearTargets, Positive

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
    """Settings of GLoRA."""

    r: Positive = 4
    """Rank of A, B and C."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(2 * config.r * (d_in + d_out) + config.r * (d_in + 1) + 2 for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach GLoRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import GloraConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = GloraConfig(r=config.r)
    return attach_to_linear(model, settings, anatomy, config)
