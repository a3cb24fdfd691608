"""Attach a method of HF peft to a model, with every newly initialised module trained and saved beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from peftlab.encoders.roles import find_targets
from peftlab.encoders.trainable import keep_in_fp32
from peftlab.errors import EncoderError

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.recipe.records import LinearTargets


def attach_through_peft(model: nn.Module, settings: Any, anatomy: Anatomy) -> nn.Module:
    """Return `model` wrapped by peft as `settings` (a `peft.PeftConfig`) says; base weights are frozen.

    peft saves a head only when it knows its name, and never a pooler that the checkpoint lacked: after a reload such a
    module would be random again (peft issues 577 and 2171). So every module of `anatomy.new_modules` is named here.
    Raises EncoderError where peft says that the settings do not go with the encoder.
    """
    from peft import TaskType, get_peft_model

    settings.task_type = TaskType[anatomy.peft_task]
    settings.modules_to_save = list(anatomy.new_modules)
    try:
        wrapped: nn.Module = get_peft_model(model, settings)
    except (ValueError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0]
        raise EncoderError(
            f"[method]: these settings do not go with this {anatomy.model_type} encoder: {first}"
        ) from error
    keep_in_fp32(wrapped, lambda parameter: parameter.requires_grad)
    return wrapped


def attach_to_linear(model: nn.Module, settings: Any, anatomy: Anatomy, chosen: LinearTargets) -> nn.Module:
    """As `attach_through_peft`, on the linear modules that `chosen` names; EncoderError where none match."""
    settings.target_modules = list(linear_targets(model, anatomy, chosen))
    return attach_through_peft(model, settings, anatomy)


def linear_targets(model: nn.Module, anatomy: Anatomy, chosen: LinearTargets) -> dict[str, tuple[int, int]]:
    """Return the linear modules that `chosen` names, each with (d_in, d_out); EncoderError where none match."""
    names = find_targets(model, anatomy, chosen.target_modules, chosen.layers)
    modules: list[Any] = [model.get_submodule(name) for name in names]
    return {name: (module.in_features, module.out_features) for name, module in zip(names, modules, strict=True)}


def refuse_rest(
    targets: Mapping[str, tuple[int, int]], key: str, size: int, *, of: Literal["inputs", "outputs", "both"]
) -> None:
    """Raise EncoderError where the block `size` of `method.<key>` leaves a rest in the widths of `targets`."""
    wanted = {"inputs": (0,), "outputs": (1,), "both": (0, 1)}[of]
    widths = sorted({pair[side] for pair in targets.values() for side in wanted})
    left = [width for width in widths if width % size]
    if left:
        fits = [divisor for divisor in range(2, min(widths) + 1) if not any(width % divisor for width in widths)]
        nearest = min(fits, key=lambda divisor: abs(divisor - size), default=1)
        raise EncoderError(
            f"method.{key}: {size} does not divide the width {left[0]} of a chosen module; "
            f"write {nearest}, which divides {', '.join(map(str, widths))}"
        )
