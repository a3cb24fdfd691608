"""VB-LoRA: LoRA whose matrices are put together from one shared bank of trained vectors.

Each piece of A and B of length v is a mixture of the k likeliest vectors of the bank, weighted by a softmax of trained
logits (Li et al. 2024, arXiv 2405.15179). B A starts near 0 and not at it.
Trainable parameters: n v for the bank and r n (d_in + d_out) / v for each target module, and the head. A run that
ships only the chosen logits (`save_top_only`) can be used and not trained further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from peftlab.encoders.shape import quarter_width
from peftlab.errors import EncoderError
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
    """Settings of VB-LoRA."""

    r: Positive = 4
    """Rank of the update."""
    vectors: Positive = 64
    """Number n of vectors in the bank; more than `top_k`."""
    length: Positive | Literal["auto"] = "auto"
    """Length v of a vector; it must divide the widths of every chosen module. `auto`: a quarter of the largest number
    that does."""
    top_k: Positive = 2
    """Vectors that are mixed into a piece."""
    dropout: Fraction = 0.0
    """Dropout on the input of the update."""
    save_top_only: bool = False
    """Ship the logits of the chosen vectors only."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    length = quarter_width(linear) if config.length == "auto" else config.length
    pieces = sum((d_in + d_out) // length for d_in, d_out in linear)
    return config.vectors * length + config.r * config.vectors * pieces


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach VB-LoRA to the chosen linear layers of `model`; EncoderError where none match."""
    from peft import VBLoRAConfig

    from peftlab.encoders.through_peft import attach_to_linear, linear_targets, refuse_rest

    if config.top_k >= config.vectors:
        raise EncoderError(f"method.top_k: {config.top_k} is not below method.vectors = {config.vectors}; write less")
    targets = linear_targets(model, anatomy, config)
    length = quarter_width(targets.values()) if config.length == "auto" else config.length
    refuse_rest(targets, "length", length, of="both")
    settings = VBLoRAConfig(
        r=config.r,
        num_vectors=config.vectors,
        vector_length=length,
        topk=config.top_k,
        vblora_dropout=config.dropout,
        save_only_topk_weights=config.save_top_only,
    )
    return attach_to_linear(model, settings, anatomy, config)
