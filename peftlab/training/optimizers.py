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
    """Return AdamW over `groups` (Loshchilov and Hutter 2019), in fp32 or with 8-bit state by bitsandbytes.

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
    if settings.name == "paged_adamw_8bit" and device.type != "cuda":
        raise UserError(
            "optimizer.name 'paged_adamw_8bit' pages between GPU and host memory; without a GPU use 'adamw_8bit'"
        )
    bitsandbytes: Any = importlib.import_module("bitsandbytes")

    made: torch.optim.Optimizer
    if settings.name == "paged_adamw_8bit":
        made = bitsandbytes.optim.PagedAdamW8bit(groups, betas=betas)
    else:
        made = bitsandbytes.optim.AdamW8bit(groups, betas=betas)
    return made
