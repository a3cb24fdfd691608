"""IA3: keys, values and the inner activations of the feed-forward network are scaled by trained vectors.

h = (l * W) x for the attention's keys and values, and h = W (l * x) for the feed-forward network's output, where l
starts at 1 (Liu et al. 2022, arXiv 2205.05638, section 3.3).
Trainable parameters: d_in for each target module with the role `ffn_out`, d_out for each other one, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import LinearTargets

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
    """Settings of IA3."""

    target_modules: tuple[str, ...] = ("key", "value", "ffn_out")
    """Roles, endings of module names, or `regex:...`, as for LoRA; the default is the paper's choice."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    is_output = (shape.inner, shape.hidden)
    return sum(d_in if (d_in, d_out) == is_output else d_out for d_in, d_out in linear)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach IA3 to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import IA3Config

    from peftlab.encoders.roles import find_targets
    from peftlab.encoders.through_peft import attach_to_linear, linear_targets

    settings = IA3Config()
    # peft wants modules whose input is scaled named twice; by then they must be among the targets.
    targets = linear_targets(model, anatomy, config)
    outputs = find_targets(model, anatomy, ("ffn_out",))
    settings.feedforward_modules = [name for name in outputs if name in targets]
    return attach_to_linear(model, settings, anatomy, config)
