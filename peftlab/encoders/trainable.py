"""Which parameters are trained, and how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftlab.encoders.quantised import size_of
from peftlab.encoders.virtual_tokens import virtual_tokens
from peftlab.errors import EncoderError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy


def set_trainable(model: nn.Module, chosen: Callable[[str], bool]) -> nn.Module:
    """Train exactly the floating-point parameters whose name is `chosen`; trained ones are stored in fp32."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point() and chosen(name))
    keep_in_fp32(model, lambda parameter: parameter.requires_grad)
    return model


def keep_in_fp32(model: nn.Module, chosen: Callable[[nn.Parameter], bool] = lambda _: True) -> None:
    """Store the `chosen` parameters in fp32 and let their modules take the activations of a bf16 or fp16 encoder.

    Trained parameters need it: bf16 has 8 bits of mantissa, so an update below 1/256 of a weight would be lost.
    """
    import torch

    for module in model.modules():
        own = [parameter for parameter in module.parameters(recurse=False) if chosen(parameter)]
        half = [parameter for parameter in own if parameter.dtype in {torch.bfloat16, torch.float16}]
        for parameter in half:
            parameter.data = parameter.data.float()
        if half and isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(_cast_to_weight)


def refuse_half_precision(model: nn.Module, method: str, why: str) -> None:
    """Raise EncoderError where `model` stores weights in half precision; `why` says what `method` needs fp32 for."""
    import torch

    if any(parameter.dtype in {torch.bfloat16, torch.float16} for parameter in model.parameters()):
        raise EncoderError(f'{method} needs an encoder in fp32: {why}; remove encoder.dtype, or write "fp32"')


def _cast_to_weight(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    import torch

    if torch.is_autocast_enabled(inputs[0].device.type):
        return inputs
    return (inputs[0].to(module.weight.dtype), *inputs[1:])  # type: ignore[arg-type] # a Linear's weight is a tensor


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Take what peft has put into the modules of `model`, if anything, out of their forward pass while this lasts."""
    wrapped: Any = model
    # Virtual tokens stand in front of the base model, not in it.
    if not hasattr(wrapped, "disable_adapter") or virtual_tokens(model):
        yield
        return
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with wrapped.disable_adapter():
        yield
    # Switched on again, peft trains everything of its own, also what a method has frozen.
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained[name])


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name, in model order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters: trained, in the whole model as it predicts, and in its embedding tables."""

    trainable: int
    total: int
    embedding: int

    @property
    def share(self) -> float:
        """Trained share of all parameters."""
        return self.trainable / self.total


def count_parameters(model: nn.Module, anatomy: Anatomy) -> ParameterCounts:
    """Count the parameters of `model`. The untrained copies that peft keeps of trained modules are not counted."""
    trainable = total = embedding = 0
    # No wrapper, that of peft around virtual tokens, and that around its other methods.
    wrappers = ("", "base_model.", "base_model.model.")
    tables = tuple(f"{wrapper}{module}." for wrapper in wrappers for module in anatomy.embeddings)
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            continue
        size = size_of(parameter)
        total += size
        trainable += size if parameter.requires_grad else 0
        embedding += size if name.startswith(tables) else 0
    return ParameterCounts(trainable, total, embedding)
