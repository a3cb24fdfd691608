"""Uni-LoRA: every entry of every LoRA matrix is taken from one short trained vector.

The entries of all A and B are P t, with t the trained vector and P a frozen random matrix with one non-zero entry a
row (arXiv 2506.00799). B A starts near 0 and not at it.
Trainable parameters: the length of t, whatever the number of target modules, and the head.
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
STARTS_AT_ENCODER = False
MERGES = True
QUANTISED = ("int8", "nf4")


class Config(LinearTargets):
    """Settings of Uni-LoRA."""

    length: Positive = 1024
    """Length of the trained vector."""
    r: Positive = 4
    """Rank of the matrices that are made from it."""
    dropout: Fraction = 0.0
    """Dropout on the input of the update."""
    seed: Annotated[int, Field(ge=0)] = 42
    """Seed of the frozen assignment, which is shipped too."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:  # noqa: ARG001 the plug-in contract
    """Return the number of trained parameters, those of the head left out."""
    return config.length


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach Uni-LoRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import UniLoraConfig

    from peftlab.encoders.through_peft import attach_to_linear

    settings = UniLoraConfig(
        r=config.r,
        theta_d_length=config.length,
        proj_seed=config.seed,
        unilora_dropout=config.dropout,
        save_indices=True,
    )
    return attach_to_linear(model, settings, anatomy, config)
