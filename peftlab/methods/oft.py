"""OFT: the inputs of a frozen weight are turned by trained rotations of blocks, which keeps angles between neurons.

h = W R x, R block-diagonal and orthogonal: a Cayley transform R = (I + Q) (I - Q)^-1 of a skew-symmetric Q that starts
at 0 (Qiu et al. 2023, arXiv 2306.07280), computed as a Neumann series of 5 terms, so that R is orthogonal
while Q is small.
Trainable parameters: d_in (b - 1) / 2 for each target module with blocks of b, and the head.
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
    """Settings of OFT."""

    block_size: Annotated[int, Field(gt=1)] = 32
    """Width of a block; it must divide the width of every chosen module's input."""
    module_dropout: Fraction = 0.0
    """Probability that a block is left unturned in a training step."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(d_in * (config.block_size - 1) // 2 for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach OFT to the chosen linear layers of `model`; EncoderError where none match or a block leaves a rest."""
    from peft import OFTConfig

    from peftlab.encoders.through_peft import attach_to_linear, linear_targets, refuse_rest

    # peft would silently take another size.
    refuse_rest(linear_targets(model, anatomy, config), "block_size", config.block_size, of="inputs")
    settings = OFTConfig(oft_block_size=config.block_size, module_dropout=config.module_dropout)
    return attach_to_linear(model, settings, anatomy, config)
