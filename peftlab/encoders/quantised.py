"""Frozen linear layers in 8 bit (LLM.int8(), Dettmers et al. 2022) or 4 bit (NF4, Dettmers et al. 2023).

bitsandbytes does it, for those of the encoder's repeated layers. Head, pooler, projections and embeddings are left as
they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from peftlab.errors import EncoderError, MissingPackage

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy

Kind = Literal["int8", "nf4"]
INSTALL = 'pip install "peftlab[quantised]"'
_DEVICES = ("cpu", "cuda", "xpu")


def check_quantising(kind: Kind, device_type: str) -> None:
    """Raise MissingPackage where bitsandbytes is absent, EncoderError where it cannot work on a device of this type."""
    if find_spec("bitsandbytes") is None:
        raise MissingPackage(f"encoder.load_in '{kind}' needs bitsandbytes, which is not installed; run: {INSTALL}")
    if device_type not in _DEVICES:
        raise EncoderError(
            f"encoder.load_in '{kind}': bitsandbytes has no kernels for the device {device_type!r}; expected one of "
            f'{", ".join(_DEVICES)}; write encoder.load_in = "full", perhaps with encoder.dtype = "bf16"'
        )


def quantising(kind: Kind, dtype: torch.dtype, spared: Sequence[str]) -> Any:
    """Return transformers' settings for weights of this `kind`; `spared` names linear layers that stay as they are.

    4-bit weights are multiplied in `dtype`, the type of what stays as it is.
    """
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(spared))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(spared),
    )


def settle(model: nn.Module) -> None:
    """Let evaluation compute as training does where bitsandbytes has two ways on a CPU.

    8 bit: see WeightOnlyLinear8bit. 4 bit: an evaluation without gradients would lay the weights out anew, in place,
    for an inference kernel that knows no backward pass, and the next training step would fail (bitsandbytes 0.50).
    """
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    from peftlab.encoders.linear8bit import WeightOnlyLinear8bit

    for module in model.modules():
        if isinstance(module, Linear8bitLt) and module.weight.device.type == "cpu":
            module.__class__ = WeightOnlyLinear8bit
        elif isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def size_of(parameter: torch.Tensor) -> int:
    """Return how many weights `parameter` stands for: two 4-bit weights share a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of an encoder's weights: its linear layers as stored, the same in fp32, and everything else.

    `linear` holds weights, biases and what is needed to read them back (scales, code books).
    """

    linear: int
    linear_fp32: int
    other: int


def weight_bytes(model: nn.Module, anatomy: Anatomy) -> WeightBytes:
    """Count the bytes of the encoder in `model`, a model before a method is attached; the head is not counted."""
    import torch

    encoder = model.get_submodule(anatomy.encoder)
    linear = linear_fp32 = other = 0
    for module in encoder.modules():
        if isinstance(module, torch.nn.Linear):
            linear += _stored(_tensors(module))
            linear_fp32 += 4 * sum(size_of(parameter) for parameter in module.parameters(recurse=False))
        else:
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            other += _stored(own)
    return WeightBytes(linear, linear_fp32, other)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the tensors of a linear layer, those outside its parameters too."""
    import torch

    weight: Any = module.weight
    yield from module.parameters(recurse=False)
    for holder in (weight, getattr(module, "state", None)):
        for name in ("CB", "SCB"):
            value = getattr(holder, name, None)
            if isinstance(value, torch.Tensor):
                yield value
    state = getattr(weight, "quant_state", None)
    while state is not None:
        yield from (value for value in vars(state).values() if isinstance(value, torch.Tensor))
        state = getattr(state, "state2", None)


def _stored(tensors: Sequence[torch.Tensor] | Iterator[torch.Tensor]) -> int:
    """Return the bytes of the storages behind `tensors`; 8-bit weights are held under two names."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
