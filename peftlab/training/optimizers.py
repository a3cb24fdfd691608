"""The optimizer and its parameter groups."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from peftlab.encoders.trainable import trained_parameters
from peftlab.errors import MissingPackage, UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.recipe.records import Optimizer

_BITSANDBYTES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
    "lion_8bit": "Lion8bit",
    "paged_lion_8bit": "PagedLion8bit",
}


def parameter_groups(
    model: nn.Module, anatomy: Anatomy, settings: Optimizer, learning_rate: float
) -> list[dict[str, Any]]:
    """Return the trained parameters in groups by `peak_lr` and `weight_decay`; every one is in exactly one group.

    Biases and norms (vectors) do not decay. Newly initialised modules take `head_learning_rate`. With `lora_plus` the
    B matrices of LoRA take that multiple of the learning rate (Hayou et al. 2024, arXiv 2402.12354), and nothing else:
    peft's own LoRA+ optimizer also speeds up the head.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained_parameters(model).items():
        rate = learning_rate
        if _is_new(name, anatomy):
            rate = settings.head_learning_rate or learning_rate
        elif settings.lora_plus is not None and ".lora_B." in name:
            rate = learning_rate * settings.lora_plus
        decay = 0.0 if parameter.ndim < 2 else settings.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _is_new(name: str, anatomy: Anatomy) -> bool:
    return ".modules_to_save." in name or anatomy.is_new(name)


def make_optimizer(groups: list[dict[str, Any]], settings: Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019) or Lion (Chen et al. 2023) over `groups`.

    AdamW in fp32 is torch's; state in 8 bit is bitsandbytes' (Dettmers et al. 2022, arXiv 2110.02861).

    Raises MissingPackage where bitsandbytes is absent, UserError for paged state without CUDA.
    """
    import torch

    betas = (settings.beta1, settings.beta2)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, betas=betas, fused=True)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingPackage(
            f'optimizer.name {settings.name!r} needs bitsandbytes; run: pip install "peftlab[quantised]"'
        )
    if settings.name.startswith("paged_") and device.type != "cuda":
        raise UserError(
            f"optimizer.name {settings.name!r} pages between GPU and host memory; without a GPU use "
            f"{settings.name.removeprefix('paged_')!r}"
        )
    found: Any = importlib.import_module("bitsandbytes.optim")
    made: torch.optim.Optimizer = getattr(found, _BITSANDBYTES[settings.name])(groups, betas=betas)
    return made
