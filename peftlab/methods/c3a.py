"""C3A: the update is made of circulant blocks, each given by one trained row and applied by Fourier transforms.

W + C with C of (d_out / b) x (d_in / b) blocks, each a circular convolution with a kernel of length b
(Chen et al. 2024, arXiv 2407.19342).
Trainable parameters: d_in d_out / b for each target module with blocks of b, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from peftlab.encoders.shape import quarter_width
from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import LinearTargets, Positive

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = False
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=1e-4, default=1e-2, high=5e-1)
STARTS_AT_ENCODER = True
MERGES = True


class Config(LinearTargets):
    """Settings of C3A."""

    block_size: Positive | Literal["auto"] = "auto"
    """Length of a kernel; it must divide the widths of every chosen module. `auto`: a quarter of the largest number
    that does."""
    init: Literal["zero", "xavier_uniform", "kaiming_uniform", "gaussian"] = "zero"
    """How the kernels start; only with `zero` training starts from the frozen encoder."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    size = quarter_width(linear) if config.block_size == "auto" else config.block_size
    return sum(d_in * d_out // size for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach C3A to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import C3AConfig

    from peftlab.encoders.through_peft import attach_to_linear, linear_targets, refuse_rest

    targets = linear_targets(model, anatomy, config)
    size = quarter_width(targets.values()) if config.block_size == "auto" else config.block_size
    refuse_rest(targets, "block_size", size, of="both")
    settings = C3AConfig(block_size=size, init_weights=True if config.init == "zero" else config.init)
    return attach_to_linear(model, settings, anatomy, config)
