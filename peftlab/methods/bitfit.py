"""BitFit: the biases of the encoder's linear layers and norms are trained, and no weight.

h = W x + b with b trained (Ben Zaken et al. 2022, arXiv 2106.10199). `query_and_ffn` is the subset of the paper's
section 4: the biases of the queries and of the first feed-forward layer. peft has no such method; the biases are the
encoder's own, are saved by name, and nothing is attached to the encoder.
Trainable parameters: 7 H + F a layer for hidden width H and feed-forward width F, those of the embeddings' norm and
projection, and the head; with `query_and_ffn` H + F a layer and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Layers, Record

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = True
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=5e-5, default=2e-3, high=3e-2)
STARTS_AT_ENCODER = True
MERGES = True


class Config(Record):
    """Settings of BitFit."""

    which: Literal["all", "query_and_ffn"] = "all"
    """`all` biases of the encoder, or those of the queries and of the first feed-forward layer."""
    layers: Layers = "all"
    """Encoder layers whose biases are trained, counted from 0; negative numbers count from the top."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out."""
    roles = ("all-linear",) if config.which == "all" else ("query", "ffn_in")
    linear = shape.linear(roles, config.layers)
    biases = sum(d_out for _, d_out in linear)
    if config.which == "query_and_ffn":
        return biases
    norms = 2 * shape.hidden * (len(linear) // 6)
    projection = shape.hidden if shape.embedding != shape.hidden else 0
    return biases + norms + (shape.embedding + projection if config.layers == "all" else 0)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Make the chosen biases of `model` and its new modules trainable; EncoderError for a half-precision encoder."""
    from peftlab.encoders.roles import find_targets, keep_layers
    from peftlab.encoders.trainable import refuse_half_precision, set_trainable

    refuse_half_precision(model, "bitfit", "a bias is trained in fp32 inside a module that multiplies in its own type")
    if config.which == "query_and_ffn":
        chosen = {f"{name}.bias" for name in find_targets(model, anatomy, ("query", "ffn_in"), config.layers)}
    else:
        inside = [name for name, _ in model.named_parameters() if anatomy.inside(name)]
        chosen = set(keep_layers([name for name in inside if name.endswith(".bias")], config.layers))
    return set_trainable(model, lambda name: name in chosen or anatomy.is_new(name))
