"""VeRA: one pair of frozen random matrices is shared by all modules, and scaled by two small trained vectors in each.

h = W x + diag(b) B diag(d) A x with A: r x d_in and B: d_out x r random and frozen; b starts at 0, so that training
starts from the frozen encoder (Kopiczko et al. 2023, arXiv 2310.11454, equation 2).
Trainable parameters: r + d_out for each target module, and the head.
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
LEARNING_RATE = LearningRate(low=1e-4, default=5e-3, high=1e-1)
STARTS_AT_ENCODER = True
MERGES = True
QUANTISED = ("int8", "nf4")


class Config(LinearTargets):
    """Settings of VeRA."""

    r: Positive = 256
    """Rank of the shared matrices; it costs one trained parameter a module."""
    d_initial: Annotated[float, Field(gt=0)] = 0.1
    """Value at which d starts."""
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
    return sum(config.r + d_out for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach VeRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import VeraConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = VeraConfig(
        r=config.r,
        d_initial=config.d_initial,
        vera_dropout=config.dropout,
        save_projection=config.save_projection,
        projection_prng_key=config.projection_seed,
    )
    return attach_to_linear(model, settings, anatomy, config)
