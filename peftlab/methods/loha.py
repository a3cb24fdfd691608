"""LoHa: the update is the element-wise product of two low-rank matrices, so that its rank reaches r * r.

W + (alpha / r) (B1 A1) * (B2 A2), with one of the four factors 0 at the start (Hyeon-Woo et al. 2021, FedPara,
arXiv 2108.06098; for adapters Yeh et al. 2023, LyCORIS, arXiv 2309.14859).
Trainable parameters: 2 r (d_in + d_out) for each target module, and the head.
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
QUANTISED = ("int8",)


class Config(LinearTargets):
    """Settings of LoHa."""

    r: Positive = 4
    """Rank of each factor."""
    alpha: Annotated[float, Field(gt=0)] = 8.0
    """The update is scaled by alpha / r."""
    module_dropout: Fraction = 0.0
    """Probability that a module is left without its update in a training step."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(2 * config.r * (d_in + d_out) for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach LoHa to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import LoHaConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = LoHaConfig(
        r=config.r,
        alpha=config.alpha,  # type: ignore[arg-type] # peft's annotation says int, its arithmetic takes floats
        module_dropout=config.module_dropout,
    )
    return attach_to_linear(model, settings, anatomy, config)
