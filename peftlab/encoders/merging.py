"""An adapter merged into the weights that it was trained against."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from peftlab.errors import EncoderError, PeftlabError

if TYPE_CHECKING:
    from torch import nn


class CannotMerge(EncoderError):
    """The trained part is no change of weights: a non-linear adapter, a prompt. The text says why."""


def merge(model: nn.Module) -> nn.Module:
    """Return a copy of `model` with its adapter merged into the weights; of a model without one, a plain copy.

    Raises CannotMerge. Quantised weights must have been read back (`dequantise`): merged into 8 bit they would be
    rounded once more.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    copied = copy.deepcopy(model)
    if not isinstance(copied, PeftModel):
        return copied.eval()
    if not hasattr(copied, "merge_and_unload"):  # peft asks the model that it wraps, which has none
        raise CannotMerge("virtual tokens have no place in the weights")
    # peft 0.21 unwraps a trained head only where it has a weight of its own, as the heads of RoBERTa and ELECTRA have
    # not: it fails with "'RobertaClassificationHead' object has no attribute 'weight'" (cf. peft issue 3114).
    _unwrap_trained_modules(copied)
    try:
        merged: nn.Module = copied.merge_and_unload(safe_merge=True)
    except (PeftlabError, AttributeError, NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CannotMerge(first) from error
    if any(isinstance(module, BaseTunerLayer) for module in merged.modules()):
        raise CannotMerge("parts of the adapter are left after merging")
    return merged.eval()


def _unwrap_trained_modules(model: nn.Module) -> None:
    """Put each trained module, such as the head, in the place of its wrapper."""
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.modules_to_save[module.active_adapters[0]])


def dequantise(model: nn.Module) -> nn.Module:
    """Put plain layers in the place of 8- and 4-bit ones, in `model` itself, and store all of it in fp32.

    The weights are those that the quantised forward pass reads back, not those that were once quantised.
    """
    import torch
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    quantised = [(name, module) for name, module in model.named_modules() if _is_quantised(module)]
    for name, module in quantised:
        weight = dequantize_bnb_weight(module.weight, getattr(module, "state", None))
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        plain.weight = torch.nn.Parameter(weight.detach().float().reshape(plain.weight.shape), requires_grad=False)
        if module.bias is not None:
            plain.bias = torch.nn.Parameter(module.bias.detach().float(), requires_grad=False)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, plain.to(module.weight.device))
    for part in model.modules():
        _forget_quantisation(part)
    return model.float()


def _is_quantised(module: Any) -> bool:
    return type(getattr(module, "weight", None)).__name__ in ("Int8Params", "Params4bit")


def _forget_quantisation(module: Any) -> None:
    """Take off what transformers and peft go by to tell a quantised model."""
    for flag in ("is_loaded_in_8bit", "is_loaded_in_4bit", "is_quantized"):
        if getattr(module, flag, False) is True:
            setattr(module, flag, False)
    for name in ("hf_quantizer", "quantization_method"):
        if name in vars(module):
            delattr(module, name)
    if hasattr(getattr(module, "config", None), "quantization_config"):
        del module.config.quantization_config
