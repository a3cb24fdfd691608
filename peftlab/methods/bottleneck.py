"""Bottleneck adapters: small two-layer networks with a non-linearity, inside every layer of the frozen encoder.

A(x) = W_up g(W_down x + b_down) + b_up, from hidden size H to m and back. Let f be a sub-layer's last linear output
(attention output or feed-forward network) and x that sub-layer's input. The encoder computes LayerNorm(x + dropout(f));
with an adapter f is replaced, before dropout, residual connection and LayerNorm, by

- `houlsby`: f + s A(f), in both sub-layers (Houlsby et al. 2019, arXiv 1902.00751, figure 2);
- `pfeiffer`: f + s A(f), in the feed-forward sub-layer only (Pfeiffer et al. 2021, arXiv 2005.00247). AdapterHub's
  adapters of that name read LayerNorm(x + f) instead of f;
- `parallel`: f + s A(x), in the feed-forward sub-layer only, s = 4 (He et al. 2022, arXiv 2110.04366, table 1, "scaled
  parallel adapter").

Leaving the lower layers without adapters is AdapterDrop (Rücklé et al. 2021, arXiv 2010.11918): `layers`. The
non-linearity is why these adapters cannot be merged into the encoder's weights.
Trainable parameters: 2 H m for each adapter, H + m more with biases, 1 more with a learned scaling, and the head. There
are 2 adapters a layer for `houlsby`, else 1; ALBERT counts as one layer, since its layers share their weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Fraction, Positive, Record

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = False
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=1e-4, default=1e-3, high=1e-2)
STARTS_AT_ENCODER = True
MERGES = False
QUANTISED = ("int8", "nf4")

REDUCTION_FACTOR = 8


class Config(Record):
    """Settings of bottleneck adapters."""

    placement: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    """After attention and feed-forward network (`houlsby`), after the latter only (`pfeiffer`), or beside it
    (`parallel`)."""
    size: Positive | None = None
    """Units of the bottleneck, m."""
    reduction_factor: Annotated[float, Field(gt=1)] | None = None
    """The same as a share: m is the hidden size divided by this, rounded down. Neither given: 8."""
    non_linearity: Literal["relu", "gelu", "tanh", "silu", "swish"] = "relu"
    """g; `swish` is another name of `silu`."""
    layers: tuple[int, ...] | Literal["all"] = "all"
    """Encoder layers that get adapters, counted from 0; negative numbers count from the top."""
    scaling: Annotated[float, Field(gt=0)] | Literal["auto", "learned"] = "auto"
    """s; `auto`: 4 for `parallel`, else 1. `learned`: one trained number for each adapter, 1 at the start."""
    dropout: Fraction = 0.0
    """Dropout behind the non-linearity."""
    bias: bool = True
    """Give both layers of an adapter a bias."""
    init: Literal["zero", "small"] = "zero"
    """`zero`: W_up is zero, so that training starts from the frozen encoder, and W_down as in LoRA (He et al. 2022).
    `small`: both from a normal distribution of deviation 0.01 cut at 0.02, so that it starts near it (Houlsby et al.
    2019, section 3.6)."""

    @field_validator("reduction_factor")
    @classmethod
    def _one_of_two(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("size") is not None:
            raise ValueError("method.size says the same in units; give one of the two")
        return value


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out."""
    size = (
        config.size if config.size is not None else int(shape.hidden // (config.reduction_factor or REDUCTION_FACTOR))
    )
    adapters = len(shape.linear(("query",), config.layers)) * (2 if config.placement == "houlsby" else 1)
    biases = shape.hidden + size if config.bias else 0
    return adapters * (2 * shape.hidden * size + biases + (config.scaling == "learned"))


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach adapters to `model` through peft.

    Raises EncoderError where the architecture is not known, a layer does not exist, or the bottleneck has no unit.
    """
    from peft import TaskType

    from peftlab.encoders.bottleneck import BottleneckConfig, find_places
    from peftlab.encoders.through_peft import attach_through_peft

    scaling = (4.0 if config.placement == "parallel" else 1.0) if config.scaling == "auto" else config.scaling
    settings = BottleneckConfig(
        task_type=TaskType.SEQ_CLS,
        size=_size(config, model),
        placement=config.placement,
        layers="all" if config.layers == "all" else list(config.layers),
        non_linearity=config.non_linearity,
        scaling=scaling,
        dropout=config.dropout,
        bias_terms=config.bias,
        init=config.init,
    )
    find_places(settings, model, anatomy)
    return attach_through_peft(model, settings, anatomy)


def _size(config: Config, model: Any) -> int:
    from peftlab.errors import EncoderError

    if config.size is not None:
        return config.size
    factor = config.reduction_factor or REDUCTION_FACTOR
    hidden: int = model.config.hidden_size
    if factor > hidden:
        raise EncoderError(
            f"method.reduction_factor: {factor:g} leaves the bottleneck no unit of the encoder's hidden size {hidden}; "
            f"expected at most {hidden}"
        )
    return int(hidden // factor)
