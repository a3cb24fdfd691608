"""Head only: the encoder stays as it is; the head and whatever else was newly initialised is trained.

Trainable parameters: for a pooled head on hidden size H and L labels, (H + 1) * L.
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
TRAINS_ENCODER = False
QUANTISED = ("int8", "nf4")
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=1e-4, default=5e-3, high=1e-1)
STARTS_AT_ENCODER = True
MERGES = True


class Config(Record):
    """Head-only training has no settings of its own."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:  # noqa: ARG001 the plug-in contract
    """Return the number of trained parameters, those of the head left out: none."""
    return 0


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:  # noqa: ARG001 the plug-in contract
    """Freeze `model` except its head and newly initialised modules."""
    from peftlab.encoders.trainable import set_trainable

    return set_trainable(model, anatomy.is_new)
