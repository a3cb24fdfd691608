"""WaveFT: a few trained wavelet coefficients of the update, at random places.

W + s * inverse wavelet transform of F, F having n trained entries that start at 0 (Bilican et al. 2025,
arXiv 2505.12532).
Trainable parameters: n for each target module, and the head.
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
LEARNING_RATE = LearningRate(low=1e-4, default=5e-3, high=1e-1)
STARTS_AT_ENCODER = True
MERGES = True
QUANTISED = ("int8", "nf4")


class Config(LinearTargets):
    """Settings of WaveFT."""

    coefficients: Positive = 512
    """Trained coefficients of each module."""
    scaling: Annotated[float, Field(gt=0)] = 25.0
    """Factor s of the update."""
    wavelet: Literal["db1", "db2", "db4", "sym2", "sym4", "coif1"] = "db1"
    """Wavelet by its PyWavelets name; `db1` is Haar's."""
    seed: Annotated[int, Field(ge=0)] = 777
    """Seed of the places, which are drawn again when a run is loaded."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.coefficients for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach WaveFT to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import WaveFTConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = WaveFTConfig(
        n_frequency=config.coefficients,
        scaling=config.scaling,
        wavelet_family=config.wavelet,
        random_loc_seed=config.seed,
    )
    return attach_to_linear(model, settings, anatomy, config)
