"""One forward pass for rows of several trained parts: peft's `adapter_names`, where it is right.

For most methods peft 0.21 ignores `adapter_names` without a word, and the logits are wrong. Those for which a test
shows that they are right stand in `MIXING`. Heads may have any sizes: each row's pooled state goes through its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peftlab.encoders.load import LoadedEncoder

MIXING = ("LORA",)
"""Methods of peft, by its name, whose adapters may meet in one forward pass; DoRA, a form of LoRA, is not one."""


@dataclass(frozen=True)
class Change:
    """An entry of a module's table that a trained part changes: `before` in the bare encoder, `after` in use."""

    table: dict[Any, Any]
    key: Any
    before: Any
    after: Any


@dataclass(frozen=True)
class Part:
    """A trained part: its model, which is right only while it is in use, and what it changes in the encoder."""

    model: nn.Module
    changes: tuple[Change, ...]


def can_mix(part: Part) -> bool:
    """Say whether rows of this part may stand in one forward pass with rows of others."""
    from peft import PeftModel

    from peftlab.encoders.pooled import PooledClassifier

    if not isinstance(part.model, PeftModel) or not isinstance(part.model.get_base_model(), PooledClassifier):
        return False
    settings: Any = part.model.peft_config["default"]
    return str(settings.peft_type.value) in MIXING and not settings.use_dora


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter by itself: its settings without the head, and its tensors by peft's names."""

    settings: Any
    tensors: dict[str, Tensor]


def adapter_of(model: Any) -> Adapter:
    """Return the adapter of a part's `model`, which must be in use: otherwise it stands outside its own encoder."""
    from peft.utils import get_peft_model_state_dict

    settings = replace(model.peft_config["default"], task_type=None, modules_to_save=None, base_model_name_or_path=None)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return Adapter(settings, {key: value for key, value in state.items() if ".lora_" in key})


def mixture(loaded: LoadedEncoder, body: nn.Module, adapters: Sequence[Adapter]) -> nn.Module:
    """Return `body`, the bare encoder of `loaded`, with all `adapters`, named by their number."""
    from peft import get_peft_model, set_peft_model_state_dict

    from peftlab.encoders.pooled import Hidden

    hidden: Any = Hidden(body)
    for flag in ("is_loaded_in_8bit", "is_loaded_in_4bit"):
        setattr(hidden, flag, bool(getattr(loaded.model, flag, False)))
    model: Any = get_peft_model(hidden, adapters[0].settings, adapter_name="0")
    for number, adapter in enumerate(adapters):
        if number:
            model.add_adapter(str(number), adapter.settings)
        set_peft_model_state_dict(model, adapter.tensors, str(number))
    mixed: nn.Module = model.eval()
    return mixed


def mixed_logits(
    model: nn.Module, parts: Sequence[Part], numbers: Sequence[int], batch: dict[str, Tensor]
) -> list[Tensor]:
    """Return the logits of each row of `batch`, [labels of its part]; `numbers` says which of `parts` a row is for."""
    hidden = model(**batch, adapter_names=[str(number) for number in numbers])
    found: dict[int, Tensor] = {}
    for number in set(numbers):
        places = [place for place, own in enumerate(numbers) if own == number]
        shell: Any = parts[number].model.get_base_model()  # type: ignore[operator] # can_mix: a PeftModel
        logits = shell.head(hidden[places], batch["attention_mask"][places])
        found.update(zip(places, logits, strict=True))
    return [found[place] for place in range(len(numbers))]
