"""Attach a method of HF peft to a model, with every newly initialised module trained and saved beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftlab.encoders.trainable import keep_in_fp32

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy


def attach_through_peft(model: nn.Module, settings: Any, anatomy: Anatomy) -> nn.Module:
    """Return `model` wrapped by peft as `settings` (a `peft.PeftConfig`) says; base weights are frozen.

    peft saves a head only when it knows its name, and never a pooler that the checkpoint lacked: after a reload such a
    module would be random again (peft issues 577 and 2171). So every module of `anatomy.new_modules` is named here.
    """
    from peft import get_peft_model

    settings.modules_to_save = list(anatomy.new_modules)
    wrapped: nn.Module = get_peft_model(model, settings)
    keep_in_fp32(wrapped, lambda parameter: parameter.requires_grad)
    return wrapped
