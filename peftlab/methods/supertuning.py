"""Super-Tuning: the entries of each weight that are largest, or smallest, are trained, and no other.

W + S, S sparse with trained entries that start at 0, where |W| is largest (arXiv 2607.09287). The places follow from
the frozen weight, so that they are the same for every seed; they are saved too.
Trainable parameters: (1 - sparsity) d_in d_out, rounded down, for each target module, and the head.
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
LEARNING_RATE = LearningRate(low=1e-5, default=5e-4, high=1e-2)
STARTS_AT_ENCODER = True
MERGES = True


class Config(LinearTargets):
    """Settings of Super-Tuning."""

    sparsity: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of the entries that stay as they are."""
    select: Literal["largest", "smallest"] = "largest"
    """Which entries are trained, by magnitude."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(int(d_in * d_out * (1 - config.sparsity)) for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach Super-Tuning to the chosen linear layers of `model`; EncoderError where none match, or none is left."""
    from peft import SupertuningConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = SupertuningConfig(sparsity=config.sparsity, select_top=config.select == "largest")
    return attach_to_linear(model, settings, anatomy, config)
