"""Top layers: the last k layers of the encoder are fine-tuned whole, and everything below them stays as it is.

A training step need not go back below layer L - k (Lee et al. 2019, arXiv 1911.03090). With a native head, the pooler
above the layers is trained too.
Trainable parameters: k (4 (H + 1) H + (H + 1) F + (F + 1) H + 4 H) for hidden width H and feed-forward width F, the
embeddings where they are asked for, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from peftlab.errors import EncoderError
from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Positive, Record

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = True
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=1e-6, default=1e-4, high=1e-3)
STARTS_AT_ENCODER = True
MERGES = True


class Config(Record):
    """Settings of fine-tuning the top layers."""

    k: Positive = 1
    """Layers that are trained, counted from the top."""
    embeddings: bool = False
    """Train the embedding tables too, with the frozen layers between them and the top."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out."""
    return config.k * shape.layer + (shape.tables if config.embeddings else 0)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Make the top `config.k` layers and the new modules trainable; EncoderError where there are not so many."""
    from peftlab.encoders.roles import keep_layers
    from peftlab.encoders.trainable import set_trainable

    settings: Any = model.config
    if config.k > settings.num_hidden_layers:
        raise EncoderError(f"method.k: the encoder has {settings.num_hidden_layers} layers; found {config.k}")
    inside = [name for name, _ in model.named_parameters() if anatomy.inside(name)]
    top = set(keep_layers(inside, tuple(range(-config.k, 0))))
    others = (f"{anatomy.encoder}.pooler.", *(f"{table}." for table in anatomy.embeddings if config.embeddings))
    return set_trainable(model, lambda name: name in top or name.startswith(others) or anatomy.is_new(name))
