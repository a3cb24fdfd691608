"""PEANuT: the update is a small trained network of the frozen weight itself.

W^T + s * g(... g(W^T A)) B with A: d_out x r, B: r x d_out, `depth` pairs of r x r layers with residual connections
between them, and g a non-linearity; B starts at 0 (arXiv 2410.01870). The network reads weights and not inputs, so
that its result can be merged.
Trainable parameters: 2 r d_out + 2 depth r^2 for each target module, and the head.
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
LEARNING_RATE = LearningRate(low=5e-5, default=5e-4, high=1e-2)
STARTS_AT_ENCODER = True
MERGES = True


class Config(LinearTargets):
    """Settings of PEANuT."""

    r: Positive = 8
    """Units of each layer of the network."""
    depth: Annotated[int, Field(ge=0)] = 0
    """Pairs of layers between the first and the last one."""
    non_linearity: Literal["relu", "gelu", "tanh", "silu"] = "relu"
    """g."""
    scaling: Annotated[float, Field(gt=0)] = 1.0
    """Factor s of the update."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(2 * config.r * d_out + 2 * config.depth * config.r**2 for _, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach PEANuT to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import PeanutConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = PeanutConfig(r=config.r, depth=config.depth, act_fn=config.non_linearity, scaling=config.scaling)
    return attach_to_linear(model, settings, anatomy, config)
