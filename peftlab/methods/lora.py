"""LoRA: a frozen weight W (d_out x d_in) gets a trained low-rank update, h = W x + (alpha / r) B A x.

A: r x d_in, random; B: d_out x r, zero, so that training starts from the frozen encoder (Hu et al. 2021,
arXiv 2106.09685, equation 3). rsLoRA scales by alpha / sqrt(r) (Kalajdzievski 2023, arXiv 2312.03732); DoRA trains a
magnitude per output beside the direction (Liu et al. 2024, arXiv 2402.09353, equation 5).
With `embeddings` the table of word embeddings gets the same update: a token's embedding moves within the r directions
that B spans, by its own column of A, which is zero at the start.
Trainable parameters: r * (d_in + d_out) for each target module, with DoRA d_out more, and the head; of the table
r * (vocabulary + width).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Encoder, Fraction, LinearTargets, Positive

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = False
QUANTISED = ("int8", "nf4")
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=5e-5, default=5e-4, high=1e-2)
STARTS_AT_ENCODER = True
MERGES = True


class Config(LinearTargets):
    """Settings of LoRA."""

    r: Positive = 8
    """Rank of the update."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """The update is scaled by alpha / r."""
    dropout: Fraction = 0.1
    """Dropout on the input of A."""
    rslora: bool = False
    """Scale by alpha / sqrt(r)."""
    dora: bool = False
    """Weight-decomposed LoRA."""
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = "default"
    """How A and B start. `pissa` and `olora` take them from the frozen weight, which is changed by as much."""
    embeddings: bool = False
    """Also change the table of word embeddings, for tokens that the encoder has rarely seen, or has seen otherwise."""

    @field_validator("embeddings")
    @classmethod
    def _plain(cls, value: bool, info: ValidationInfo) -> bool:
        if value and (info.data.get("dora") or info.data.get("init") not in ("default", "gaussian")):
            raise ValueError('goes with init "default" or "gaussian" and without dora; remove it, or these')
        return value


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number of trained parameters, those of the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    table = config.r * (shape.words + shape.embedding) if config.embeddings else 0
    return table + sum(config.r * (d_in + d_out) + (d_out if config.dora else 0) for d_in, d_out in linear)


def unfit_for_quantised(config: Config, encoder: Encoder) -> tuple[str, str] | None:  # noqa: ARG001 the contract
    """Return the key of the recipe that needs full-precision weights, and why; None where there is none."""
    if config.init in {"pissa", "olora"}:
        return "method.init", f"{config.init} takes A and B from the frozen weight, which must be in full precision"
    if config.init == "orthogonal":
        reason = "orthogonal gives A and B the frozen weight's type (peft 0.21), which must be one of fractions"
        return "method.init", reason
    return None


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach LoRA to the chosen linear layers of `model`, and its word embeddings, through peft.

    Raises EncoderError where no layers match, and for embeddings that a decoder shares with its output layer.
    """
    from peft import LoraConfig

    from peftlab.encoders.roles import word_table
    from peftlab.encoders.through_peft import attach_through_peft, linear_targets

    settings = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type] # peft's annotation says int, its arithmetic takes floats
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        use_dora=config.dora,
        init_lora_weights=True if config.init == "default" else config.init,
    )
    tables = [word_table(anatomy)] if config.embeddings else []
    settings.target_modules = [*linear_targets(model, anatomy, config), *tables]
    attached = attach_through_peft(model, settings, anatomy)
    if tables:
        _scale_down(attached)
    return attached


def _scale_down(attached: nn.Module) -> None:
    """Bring B of the table from peft's deviation of 1 to that of embeddings: the first steps would drown them else."""
    import torch

    with torch.no_grad():
        for name, parameter in attached.named_parameters():
            if ".lora_embedding_B." in name:
                parameter.mul_(len(parameter) ** -0.5)
