"""FourierFT: a few trained coefficients of the update's two-dimensional spectrum, at random frequencies.

W + s * real part of the inverse Fourier transform of F with n trained entries (Gao et al. 2024, arXiv 2405.03003).
The paper draws them from a normal distribution, so that training does not start from the frozen encoder; here they
start at 0 unless `init` says otherwise. The transform divides by d_in d_out, so learning rates are far above LoRA's.
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
LEARNING_RATE = LearningRate(low=1e-3, default=5e-2, high=5e-1)
STARTS_AT_ENCODER = True
MERGES = True
QUANTISED = ("int8", "nf4")


class Config(LinearTargets):
    """Settings of FourierFT."""

    frequencies: Positive = 1000
    """Trained coefficients of each module."""
    scaling: Annotated[float, Field(gt=0)] = 150.0
    """Factor s of the update."""
    init: Literal["zero", "gaussian"] = "zero"
    """How the coefficients start."""
    seed: Annotated[int, Field(ge=0)] = 777
    """Seed of the frequencies, which are drawn again when a run is loaded."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.frequencies for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach FourierFT to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import FourierFTConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = FourierFTConfig(
        n_frequency=config.frequencies,
        scaling=config.scaling,
        init_weights=config.init == "zero",
        random_loc_seed=config.seed,
    )
    return attach_to_linear(model, settings, anatomy, config)
