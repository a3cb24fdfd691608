"""SHiRA: a few entries of each weight, at random places, are trained as they are.

W + S, S sparse with trained entries that start at 0 (Bhardwaj et al. 2024, arXiv 2406.13175).
Trainable parameters: r (d_in + d_out) for each target module, as many as LoRA of rank r has, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

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
QUANTISED = ("nf4",)


class Config(LinearTargets):
    """Settings of SHiRA."""

    r: Positive = 8
    """Number of entries in terms of a LoRA rank."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the places; they are saved too."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.r * (d_in + d_out) for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach SHiRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import ShiraConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = ShiraConfig(r=config.r, random_seed=config.seed)
    return attach_to_linear(model, settings, anatomy, config)
