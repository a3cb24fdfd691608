"""DeLoRA: a low-rank update with a trained length, so that how far a weight moves is apart from where to.

W + (lambda |W| / r) sum over i of b_i a_i^T / (|b_i| |a_i|), less its own value at the start (Bini et al. 2025,
arXiv 2503.18225).
Trainable parameters: r (d_in + d_out) + 1 for each target module, and the head.
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
    """Settings of DeLoRA."""

    r: Positive = 8
    """Rank of the update."""
    strength: Annotated[float, Field(gt=0)] = 0.5
    """Value at which lambda starts: a bound on the length of the update. At peft's 15 the first steps move a small
    encoder so far that some trainings never come back."""
    module_dropout: Fraction = 0.0
    """Dropout on the input of the update."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.r * (d_in + d_out) + 1 for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach DeLoRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import DeloraConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = DeloraConfig(
        r=config.r,
        delora_lambda=config.strength,  # type: ignore[arg-type] # peft's annotation says int, its arithmetic takes floats
        module_dropout=config.module_dropout,
    )
    return attach_to_linear(model, settings, anatomy, config)
