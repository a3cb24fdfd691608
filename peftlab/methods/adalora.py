"""AdaLoRA: low-rank updates whose ranks are shared out between the modules while training, by importance.

Each chosen weight W (d_out x d_in) gets h = W x + (alpha / initial_r) B diag(E) A x, with A: initial_r x d_in and
B: d_out x initial_r as singular vectors and E as singular values (Zhang et al. 2023, arXiv 2303.10512, equation 3). E
starts at zero, so that training starts from the frozen encoder. A and B are held near orthogonality by a penalty
(equation 4; like the authors' code the mean of the norms over all matrices, not squared). A triplet of one E, row of A
and column of B counts for its smoothed sensitivity times its uncertainty (equations 7 to 11). The budget of triplets
falls from initial_r to r a module, along a cubic (equation 12): values of E beyond the budget are set to zero.
Trainable parameters: initial_r * (d_in + d_out + 1) for each target module at the start, and the head. What is shipped
has rank * (d_in + d_out + 1) for each module; the ranks sum to r times the number of modules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from peftlab.encoders.hooks import Hooks
from peftlab.errors import UserError
from peftlab.recipe.plugins import LearningRate
from peftlab.recipe.records import Encoder, Fraction, Positive, Record

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.shape import EncoderShape

NEEDS_ENCODER = True
TRAINS_ENCODER = False
SOLVER: Literal["gradient"] = "gradient"
LEARNING_RATE = LearningRate(low=1e-4, default=6e-3, high=2e-2)
STARTS_AT_ENCODER = True
MERGES = True
QUANTISED = ("int8", "nf4")

_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
_ADAPTER = "default"

OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]


class Config(Record):
    """Settings of AdaLoRA."""

    r: Positive = 8
    """Mean rank of the modules after training; some end with more, some with less, down to 0."""
    initial_r: Positive | Literal["auto"] = "auto"
    """Rank of every module at the start, above `r`; `auto`: 1.5 times `r`, as in the paper."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """The update is scaled by alpha / initial_r, also after ranks were removed."""
    dropout: Fraction = 0.1
    """Dropout on the input of A."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """Roles (`query`, `key`, `value`, `attention_output`, `ffn_in`, `ffn_out`, or `attention`, `ffn`, `all-linear`),
    endings of module names, or `regex:...` over whole module names."""
    layers: tuple[int, ...] | Literal["all"] = "all"
    """Encoder layers that get an update, counted from 0; negative numbers count from the top."""
    tinit: Fraction = 0.1
    """Share of all optimizer steps before the first rank is taken away."""
    tfinal: Annotated[OpenFraction, Field(validate_default=True)] = 0.5
    """Share of all optimizer steps, the last ones, in which the final ranks are trained and none changes. Only then can
    a checkpoint be the best, or `evaluation.patience` end the run."""
    delta_t: Positive = 10
    """Optimizer steps from one allocation of ranks to the next; a rank that was taken away may come back at it."""
    beta1: OpenFraction = 0.85
    """Decay of the running mean of the importance."""
    beta2: OpenFraction = 0.85
    """Decay of the running mean of its uncertainty."""
    orthogonal_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the penalty that holds A and B near orthogonality."""

    @field_validator("initial_r")
    @classmethod
    def _above_r(cls, value: int | str, info: ValidationInfo) -> int | str:
        target = info.data.get("r")
        if isinstance(value, int) and target is not None and value <= target:
            raise ValueError(f"expected a whole number above r = {target}, from which ranks are taken, found {value}")
        return value

    @field_validator("tfinal")
    @classmethod
    def _leaves_steps(cls, value: float, info: ValidationInfo) -> float:
        start = info.data.get("tinit", 0.0)
        if start + value >= 1:
            raise ValueError(
                f"tinit = {start:g} and tfinal = {value:g} leave no steps in which ranks are taken away; expected a "
                "sum below 1"
            )
        return value

    @property
    def first_rank(self) -> int:
        """Rank of every module at the start."""
        return math.ceil(1.5 * self.r) if self.initial_r == "auto" else self.initial_r


def trainable_parameters(config: Config, shape: EncoderShape) -> int:
    """Return the number trained at the start, the head left out; KeyError for targets that are no roles."""
    linear = shape.linear(config.target_modules, config.layers)
    return sum(config.first_rank * (d_in + d_out + 1) for d_in, d_out in linear)


def unfit_for_quantised(config: Config, encoder: Encoder) -> tuple[str, str] | None:  # noqa: ARG001 the contract
    """Return the key of the recipe that does not go with quantised weights, and why; None where there is none."""
    if encoder.load_in == "int8" and encoder.dtype in ("bf16", "fp16"):
        return "encoder.dtype", "peft's AdaLoRA hands fp32 on to norms in half precision (peft 0.21, int8 only)"
    return None


def attach(model: nn.Module, config: Config, anatomy: Anatomy) -> nn.Module:
    """Attach AdaLoRA to the chosen linear layers of `model` through peft; raises EncoderError where none match."""
    from peft import AdaLoraConfig, TaskType
    from peft.tuners._buffer_dict import BufferDict

    from peftlab.encoders.roles import find_targets
    from peftlab.encoders.through_peft import attach_through_peft

    settings = AdaLoraConfig(
        task_type=TaskType.SEQ_CLS,
        target_r=config.r,
        init_r=config.first_rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type] # peft's annotation says int, its arithmetic takes floats
        lora_dropout=config.dropout,
        target_modules=list(find_targets(model, anatomy, config.target_modules, config.layers)),
        beta1=config.beta1,
        beta2=config.beta2,
        deltaT=config.delta_t,
        orth_reg_weight=config.orthogonal_weight,
        total_step=1,  # peft wants it now; `hooks` knows it
    )
    wrapped = attach_through_peft(model, settings, anatomy)
    for layer in _layers(wrapped).values():
        # peft keeps the constant initial_r as a parameter, and on a half-precision encoder it would be trained.
        layer.ranknum = BufferDict({_ADAPTER: layer.ranknum[_ADAPTER].detach()}, persistent=False)
    return wrapped


def hooks(model: nn.Module, config: Config, total_steps: int) -> Hooks:
    """Return what AdaLoRA does beside the gradient in a run of `total_steps` optimizer steps.

    peft's allocator does the arithmetic. Raises UserError where the steps are too few for the three phases.
    """
    tinit, tfinal = _phases(config, total_steps)
    tuner: Any = _tuner(model)
    allocator, settings = tuner.rankallocator, tuner.peft_config[_ADAPTER]
    settings.tinit, settings.tfinal, settings.total_step = tinit, tfinal, total_steps
    settled = total_steps - tfinal

    def after_step(step: int, updated: bool) -> None:
        # From the last allocation on no gradient is read; before it, one that overflowed would spoil the averages.
        if updated or step >= settled:
            tuner.update_and_allocate(step)

    def state() -> dict[str, Any]:
        return {name: getattr(allocator, name) for name in _AVERAGES} | {"rank_pattern": settings.rank_pattern}

    def restore(saved: Mapping[str, Any]) -> None:
        own = dict(tuner.model.named_parameters())
        for name in _AVERAGES:
            setattr(allocator, name, {key: value.to(own[key].device) for key, value in saved[name].items()})
        settings.rank_pattern = saved["rank_pattern"]

    return Hooks(
        penalty=(lambda: config.orthogonal_weight * orthogonality(model)) if config.orthogonal_weight else None,
        after_step=after_step,
        state=state,
        restore=restore,
        settled_from=settled,
        finish=lambda: remove_masked_ranks(model),
    )


def orthogonality(model: nn.Module) -> Tensor:
    """Return the mean over all A and B of the Frobenius norms of A A^T - I and B^T B - I, a scalar."""
    import torch

    grams = [
        gram
        for layer in _layers(model).values()
        for gram in (
            layer.lora_A[_ADAPTER] @ layer.lora_A[_ADAPTER].T,
            layer.lora_B[_ADAPTER].T @ layer.lora_B[_ADAPTER],
        )
    ]
    norms = [torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
    return torch.stack(norms).mean()


def remove_masked_ranks(model: nn.Module) -> dict[str, int]:
    """Shrink A, B and E to the triplets that the last allocation kept; return the rank of each module by its name.

    peft's own `resize_modules_by_rank_pattern` would round what was trained to the type of the frozen weight.
    """
    import torch

    pattern = _tuner(model).peft_config[_ADAPTER].rank_pattern
    ranks = {}
    for name, layer in _layers(model).items():
        kept = torch.tensor(pattern[f"{name}.lora_E.{_ADAPTER}"], device=layer.lora_E[_ADAPTER].device)
        for matrices, keep in ((layer.lora_A, kept), (layer.lora_E, kept), (layer.lora_B, (slice(None), kept))):
            matrices[_ADAPTER] = torch.nn.Parameter(matrices[_ADAPTER].detach()[keep])
        layer.r[_ADAPTER] = ranks[name] = int(kept.sum())
    return ranks


def _phases(config: Config, total_steps: int) -> tuple[int, int]:
    """Return the steps before the first allocation and after the last one."""
    tinit, tfinal = round(config.tinit * total_steps), max(1, round(config.tfinal * total_steps))
    between, needed = total_steps - tinit - tfinal, max(2, config.delta_t)
    if between < needed:
        raise UserError(
            f"method: {total_steps} optimizer steps are too few for adalora: without {tinit} for tinit and {tfinal} "
            f"for tfinal, {between} are left to take ranks away in; expected at least {needed}; train longer, or lower "
            "method.delta_t"
        )
    return tinit, tfinal


def _tuner(model: nn.Module) -> Any:
    """Return peft's AdaLoraModel."""
    return model.base_model


def _layers(model: nn.Module) -> dict[str, Any]:
    """Return peft's adapted layers by the names that they have in the encoder."""
    from peft.tuners.adalora import AdaLoraLayer

    return {name: module for name, module in _tuner(model).model.named_modules() if isinstance(module, AdaLoraLayer)}
