"""LayerNorm tuning: weights and biases of the encoder's norms are trained.

h = w * (x - mean) / deviation + b with w and b trained (Qi et al. 2022, arXiv 2211.08682; Zhao et al. 2023, arXiv
2312.11420). Attached through peft, which trains a copy of each norm: so several runs can share one encoder and be
switched, which training the encoder's own norms would not allow.
Trainable parameters: 4 H a layer for hidden width H, those of the embeddings' norm, and the head.
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
TRAINS_ENCODER = False
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=5e-5, default=2e-3, high=3e-2)
STARTS_AT_ENCODER = True
MERGES = True


class Config(Record):
    """Settings of LayerNorm tuning."""

    layers: Layers = "all"
    """Encoder layers whose norms are trained, counted from 0; negative numbers count from the top. `all` trains the
    embeddings' norm too."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out."""
    layers = len(shape.linear(("query",), config.layers))
    return layers * shape.norms + (2 * shape.embedding if config.layers == "all" else 0)


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach trained copies of the chosen norms of `model`; EncoderError for a half-precision encoder."""
    from peft import LNTuningConfig

    from peftlab.encoders.roles import find_norms
    from peftlab.encoders.through_peft import attach_through_peft
    from peftlab.encoders.trainable import refuse_half_precision

    # Found by the contract tests on a bf16 encoder: reloaded logits differ by 2e-3.
    refuse_half_precision(
        model, "layernorm", "peft reloads the trained norms in the encoder's own type, and rounds them"
    )
    settings = LNTuningConfig(target_modules=list(find_norms(model, anatomy, config.layers)))
    return attach_through_peft(model, settings, anatomy)
