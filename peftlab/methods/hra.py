"""HRA: the inputs of a frozen weight are reflected by r trained Householder reflections.

h = W H_1 ... H_r x with H_i = I - 2 u_i u_i^T / |u_i|^2; the u_i start in equal pairs, whose reflections cancel
(Yuan et al. 2024, arXiv 2405.17484). The Gram-Schmidt variant is left out: from that start peft 0.21 gives NaN.
Trainable parameters: r d_in for each target module, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import LinearTargets

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = False
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=5e-5, default=1e-3, high=1e-2)
STARTS_AT_ENCODER = True
MERGES = True


class Config(LinearTargets):
    """Settings of HRA."""

    r: Annotated[int, Field(gt=0, multiple_of=2)] = 8
    """Reflections; an even number, so that they cancel at the start."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.r * d_in for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach HRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import HRAConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = HRAConfig(r=config.r)
    return attach_to_linear(model, settings, anatomy, config)
