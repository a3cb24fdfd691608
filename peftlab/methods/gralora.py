"""GraLoRA: the weight is cut into k x k blocks, each with a low-rank update of its own.

Each block of d_out / k x d_in / k gets B A of rank r / k, so that the whole has rank up to r k at LoRA's cost; the B
start at 0 (Jung et al. 2025, arXiv 2505.20355).
Trainable parameters: r (d_in + d_out) for each target module, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from peftlab.errors import EncoderError
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
    """Settings of GraLoRA."""

    r: Positive = 8
    """Rank of a row of blocks; k must divide it."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """The update is scaled by alpha / r."""
    k: Positive = 2
    """Blocks along each side; it must divide r and the widths of every chosen module."""
    dropout: Fraction = 0.1
    """Dropout on the input of the update."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.r * (d_in + d_out) for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach GraLoRA to the chosen linear layers of `model`; EncoderError where none match or a block leaves a rest."""
    from peft import GraloraConfig

    from peftlab.encoders.through_peft import attach_to_linear, linear_targets, refuse_rest

    if config.r % config.k:
        raise EncoderError(
            f"method.k: {config.k} does not divide method.r = {config.r}; write r = {config.k * config.r}"
        )
    refuse_rest(linear_targets(model, anatomy, config), "k", config.k, of="both")
    settings = GraloraConfig(
        r=config.r,
        alpha=config.alpha,  # type: ignore[arg-type] # peft's annotation says int, its arithmetic takes floats
        gralora_k=config.k,
        gralora_dropout=config.dropout,
    )
    return attach_to_linear(model, settings, anatomy, config)
