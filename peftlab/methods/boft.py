"""BOFT: trained rotations of small blocks of the inputs, and a trained scale of each output.

h = diag(s) W R x with R block-diagonal and orthogonal by the Cayley transform, at the identity at the start
(Liu et al. 2023, arXiv 2311.06243). Only one butterfly factor is offered: without a CUDA extension that it compiles at
first use, peft sets more of them back to one in silence, and a run would depend on the machine.
Trainable parameters: d_in b + d_out for each target module with blocks of b, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Fraction, LinearTargets

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
QUANTISED = ("int8", "nf4")


class Config(LinearTargets):
    """Settings of BOFT."""

    block_size: Annotated[int, Field(gt=1)] = 4
    """Width of a block; it must divide the width of every chosen module's input."""
    dropout: Fraction = 0.0
    """Probability that a block is left unturned in a training step."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(d_in * config.block_size + d_out for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach BOFT to the chosen linear layers of `model`; EncoderError where none match or a block leaves a rest."""
    from peft import BOFTConfig

    from peftlab.encoders.through_peft import attach_to_linear, linear_targets, refuse_rest

    refuse_rest(linear_targets(model, anatomy, config), "block_size", config.block_size, of="inputs")
    settings = BOFTConfig(boft_block_size=config.block_size, boft_dropout=config.dropout)
    return attach_to_linear(model, settings, anatomy, config)
