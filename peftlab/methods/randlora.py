"""RandLoRA: the update is a sum of frozen random low-rank matrices with trained scales, and so has full rank.

W + (alpha / r) sum over n bases of B_j L_j A G_j, with A and B_j random, frozen and shared, L_j and G_j trained
diagonal matrices; the L_j start at 0 (Albert et al. 2025, arXiv 2502.00987).
Trainable parameters: n (r + m) for each target module, m = min(d_in, d_out) and n = m / r rounded up, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Fraction, LinearTargets, Positive

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
    """Settings of RandLoRA."""

    r: Positive = 32
    """Rank of each basis; a larger one trains less."""
    alpha: Annotated[float, Field(gt=0)] = 640.0
    """The update is scaled by alpha / r."""
    dropout: Fraction = 0.0
    """Dropout on the input of the update."""
    save_projection: bool = True
    """Ship the frozen random matrices too. `false` ships a fraction of the bytes and draws them again from
    `projection_seed`, which is the same on the same version of torch and is not promised beyond it."""
    projection_seed: int = 0
    """Seed of the frozen random matrices."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(-(-min(d_in, d_out) // config.r) * (config.r + min(d_in, d_out)) for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach RandLoRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import RandLoraConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = RandLoraConfig(
        r=config.r,
        randlora_alpha=config.alpha,  # type: ignore[arg-type] # peft's annotation says int, its arithmetic takes floats
        randlora_dropout=config.dropout,
        save_projection=config.save_projection,
        projection_prng_key=config.projection_seed,
    )
    return attach_to_linear(model, settings, anatomy, config)
