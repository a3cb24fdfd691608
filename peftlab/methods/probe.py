"""Linear probe: pooled embeddings of the frozen encoder, computed once, and a logistic regression on them.

The solution is written into a linear head, so that a probe is saved, scored and served like any other run
(Alain and Bengio 2017; as a starting point for fine-tuning: Kumar et al. 2022, arXiv 2202.10054).
Trainable parameters: (H + 1) * L for hidden size H and L labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from peftlab.recipe.records import Record

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = False
QUANTISED = ("int8", "nf4")
SOLVER: Literal["linear_probe"] = "linear_probe"
LEARNING_RATE = None
STARTS_AT_ENCODER = True
MERGES = True


class Config(Record):
    """Settings of the logistic regression."""

    c: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Inverse strength of the L2 penalty, on standardised features; `auto`: the best of six on validation."""
    max_iterations: Annotated[int, Field(gt=0)] = 1000
    """Most L-BFGS iterations."""


def trainable_parameters(config: Config, shape: EncoderShape) -> int:  # noqa: ARG001 the plug-in contract
    """Return the number of trained parameters, those of the head left out: none."""
    return 0


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:  # noqa: ARG001 the plug-in contract
    """Freeze `model` except its head, which the solver fills in."""
    from peftlab.encoders.trainable import set_trainable

    return set_trainable(model, anatomy.is_new)
