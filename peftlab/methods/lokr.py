"""LoKr: the update is a Kronecker product of a small matrix and a larger one, the larger of low rank.

W + s (C kron B A): with d_out = a c and d_in = b d split as evenly as can be (a <= c, b <= d), C is a x b and B A is
c x d of rank r. C starts at 0 (Yeh et al. 2023, LyCORIS, arXiv 2309.14859). s is alpha / r.
Trainable parameters: a b + r (c + d) for each target module, or a b + c d where r is at least half of c or d, and the
head.
"""

from __future__ import annotations

import math
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
LEARNING_RATE = LearningRate(low=5e-5, default=1e-3, high=3e-2)
STARTS_AT_ENCODER = True
MERGES = True
QUANTISED = ("int8",)


class Config(LinearTargets):
    """Settings of LoKr."""

    r: Positive = 8
    """Rank of the larger factor."""
    alpha: Annotated[float, Field(gt=0)] = 8.0
    """The update is scaled by alpha / r."""
    module_dropout: Fraction = 0.0
    """Probability that a module is left without its update in a training step."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(_of_module(config.r, d_in, d_out) for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach LoKr to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import LoKrConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = LoKrConfig(
        r=config.r,
        alpha=config.alpha,  # type: ignore[arg-type] # peft's annotation says int, its arithmetic takes floats
        module_dropout=config.module_dropout,
    )
    return attach_to_linear(model, settings, anatomy, config)


def _of_module(r: int, d_in: int, d_out: int) -> int:
    (a, c), (b, d) = _split(d_out), _split(d_in)
    return a * b + (r * (c + d) if r < max(c, d) / 2 else c * d)


def _split(width: int) -> tuple[int, int]:
    """Return the two factors of `width` that are nearest to each other, the smaller one first."""
    smaller = next(factor for factor in range(math.isqrt(width), 0, -1) if width % factor == 0)
    return smaller, width // smaller
