"""RoAd: pairs of outputs are turned and scaled by trained angles and lengths.

h = R W x, R block-diagonal of 2 x 2 blocks alpha [cos t, -sin t; sin t, cos t], the identity at the start
(Liao and Monz 2024, arXiv 2409.00119). `road_1` trains one angle and one length a pair, `road_2` one for
each output of the pair, `road_4` one for each entry of the block.
Trainable parameters: k d_out for each target module with `road_k`, and the head.
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
LEARNING_RATE = LearningRate(low=1e-4, default=5e-3, high=1e-1)
STARTS_AT_ENCODER = True
MERGES = True


class Config(LinearTargets):
    """Settings of RoAd."""

    variant: Literal["road_1", "road_2", "road_4"] = "road_1"
    """How much of a block is trained."""
    group_size: Annotated[int, Field(gt=1, multiple_of=2)] = 32
    """Outputs within which pairs are formed; it must divide the width of every chosen module's output."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(int(config.variant[-1]) * d_out for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach RoAd to the chosen linear layers of `model`; EncoderError where none match or a block leaves a rest."""
    from peft import RoadConfig

    from peftlab.encoders.through_peft import attach_to_linear, linear_targets, refuse_rest

    refuse_rest(linear_targets(model, anatomy, config), "group_size", config.group_size, of="outputs")
    settings = RoadConfig(variant=config.variant, group_size=config.group_size)
    return attach_to_linear(model, settings, anatomy, config)
