"""PVeRA: VeRA whose inner vector is drawn from a trained normal distribution, and is its mean once trained.

h = W x + diag(b) B z with z ~ N(mu(A x), sigma(A x)), A and B random, frozen and shared (arXiv 2512.07703).
Trainable parameters: 2 r + d_out for each target module, and the head.
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


class Config(LinearTargets):
    """Settings of PVeRA."""

    r: Positive = 256
    """Rank of the shared matrices; it costs two trained parameters a module."""
    d_initial: Annotated[float, Field(gt=0)] = 0.1
    """Value at which the trained scales of the distribution start."""
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
    return sum(2 * config.r + d_out for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach PVeRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import PveraConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = PveraConfig(
        r=config.r,
        d_initial=config.d_initial,
        pvera_dropout=config.dropout,
        save_projection=config.save_projection,
        projection_prng_key=config.projection_seed,
    )
    return attach_to_linear(model, settings, anatomy, config)
