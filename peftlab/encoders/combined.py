"""One LoRA adapter out of several of the same encoder: the weighted sum of their updates and of their heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftlab.encoders.load import LoadedEncoder
from peftlab.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor, nn

How = Literal["cat", "svd", "linear"]
_WEIGHTS = "adapter_model.safetensors"
_OWN_START = ("pissa", "olora", "loftq", "corda")


@dataclass(frozen=True)
class Combined:
    """A model with the combined adapter as its only one, and the adapter's rank."""

    model: nn.Module
    rank: int


def combine_lora(
    loaded: LoadedEncoder, bare: LoadedEncoder, folders: Sequence[Path], weights: Sequence[float], how: How, rank: int
) -> Combined:
    """Return `bare` with an adapter that sums those in `folders`, each times its weight; `loaded` is used up.

    Both are the encoder in full precision under a head of the right size. With sum_i w_i s_i B_i A_i as the update
    wanted (s_i: an adapter's own scaling), `cat` stacks the factors and is exact, its rank the sum of all ranks; `svd`
    keeps its `rank` largest singular directions; `linear` sums the factors A_i and B_i themselves (each times
    sqrt(w_i s_i)), which needs equal ranks and is close only for adapters that started from the same A. peft does it.
    Trained modules beside LoRA, the head among them, are summed with the same weights. Raises RunError where an adapter
    is no plain LoRA.
    """
    from peft import get_peft_model, set_peft_model_state_dict
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import load_file

    settings = [_settings(folder) for folder in folders]
    tensors = [load_file(folder / _WEIGHTS) for folder in folders]
    ranks = {_highest_rank(one) for one in settings}
    if how == "linear" and len(ranks) > 1:
        raise RunError(
            f"'linear' needs adapters of one rank, and these have {', '.join(map(str, sorted(ranks)))}; take cat or svd"
        )
    names = [f"part{place}" for place in range(len(folders))]
    plain = [_without_head(one) for one in settings]
    wrapped: Any = get_peft_model(loaded.model, plain[0], adapter_name=names[0])
    for name, one in zip(names[1:], plain[1:], strict=True):
        wrapped.add_adapter(name, one)
    for name, own in zip(names, tensors, strict=True):
        set_peft_model_state_dict(wrapped, {key: value for key, value in own.items() if ".lora_" in key}, name)
    wrapped.base_model.add_weighted_adapter(
        names, list(weights), "sum", combination_type=how, svd_rank=rank if how == "svd" else None
    )
    made = wrapped.peft_config["sum"]
    state = get_peft_model_state_dict(wrapped, adapter_name="sum")
    final = replace(
        settings[0], r=made.r, lora_alpha=made.r, use_rslora=False, target_modules=made.target_modules, rank_pattern={}
    )
    model: Any = get_peft_model(bare.model, final)
    set_peft_model_state_dict(model, {**state, **_summed_heads(tensors, weights, folders)})
    return Combined(model.eval(), made.r)


def _settings(folder: Path) -> Any:
    """Return the LoRA settings in `folder`, ready to start from; RunError where it holds something else."""
    from peft import LoraConfig, PeftConfig

    try:
        settings = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} holds no adapter of peft; only LoRA adapters can be combined") from error
    if not isinstance(settings, LoraConfig):
        raise RunError(f"{folder} holds a {settings.peft_type} adapter; only LoRA adapters can be combined")
    if settings.use_dora:
        raise RunError(
            f"{folder} holds a DoRA adapter, whose magnitudes do not add up; only plain LoRA can be combined"
        )
    if str(settings.init_lora_weights).startswith(_OWN_START):
        raise RunError(
            f"{folder} holds an adapter that started from the frozen weights ({settings.init_lora_weights}) and "
            "changes them; such adapters do not add up"
        )
    return replace(settings, inference_mode=False, base_model_name_or_path=None)


def _highest_rank(settings: Any) -> int:
    return max(int(settings.r), *map(int, (settings.rank_pattern or {}).values()), 0)


def _without_head(settings: Any) -> Any:
    """Return settings for LoRA alone: peft sums no adapters that train the same module beside it.

    The sum has the scaling 1, which rank-stabilised scaling would make sqrt(rank); so that is written as alpha.
    """
    alpha = settings.lora_alpha * settings.r**0.5 if settings.use_rslora else settings.lora_alpha
    if settings.use_rslora and (settings.rank_pattern or settings.alpha_pattern):
        raise RunError("rank-stabilised LoRA with ranks of its own for single modules cannot be combined")
    return replace(settings, task_type=None, modules_to_save=None, use_rslora=False, lora_alpha=alpha)


def _summed_heads(
    tensors: Sequence[dict[str, Tensor]], weights: Sequence[float], folders: Sequence[Path]
) -> dict[str, Tensor]:
    """Return the weighted sum of what was trained beside LoRA, added up in fp64."""
    import torch

    heads = [{key: value for key, value in one.items() if ".lora_" not in key} for one in tensors]
    for folder, head in zip(folders, heads, strict=True):
        if {key: value.shape for key, value in head.items()} != {key: value.shape for key, value in heads[0].items()}:
            raise RunError(f"{folder} and {folders[0]} have trained other modules beside LoRA, or heads of other sizes")
    total = {key: torch.zeros(value.shape, dtype=torch.float64) for key, value in heads[0].items()}
    for weight, head in zip(weights, heads, strict=True):
        for key, value in head.items():
            total[key] += weight * value.double()
    return {key: value.float() for key, value in total.items()}
