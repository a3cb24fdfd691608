"""Full fine-tuning: every parameter of encoder and head is trained. The yardstick of the other methods.

Trainable parameters: all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Record

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = True
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=1e-6, default=5e-5, high=3e-4)
STARTS_AT_ENCODER = True
MERGES = True


class Config(Record):
    """Settings of full fine-tuning."""

    embeddings: bool = True
    """Train the embedding tables too; `false` freezes them, which spares memory and a large part of the step."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out."""
    return shape.outside + shape.layers * shape.layer + (shape.tables if config.embeddings else 0)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Make every parameter of `model` trainable, the embedding tables only if `config.embeddings`."""
    from peftlab.encoders.trainable import set_trainable

    frozen = () if config.embeddings else anatomy.embeddings
    return set_trainable(model, lambda name: not name.startswith(tuple(f"{module}." for module in frozen)))
