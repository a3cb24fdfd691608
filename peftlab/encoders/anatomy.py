"""Where the parts of a model are: its encoder, its embeddings, and what was newly initialised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Anatomy:
    """Names of the parts of one model, as `named_modules` gives them.

    `encoder`: the encoder's module (`bert`, `encoder`, ...). `embeddings`: modules of embedding tables.
    `new_modules`: modules whose weights did not come from the checkpoint, the head among them; each is trained and
    saved. `head`: the modules outside the encoder. `model_type`: the architecture by its transformers name.
    `peft_task`: the name of peft's `TaskType` that an adapter's file states. `decoder`: the decoder's module, where a
    model has one that is not within `encoder`.
    """

    model_type: str
    encoder: str
    embeddings: tuple[str, ...]
    head: tuple[str, ...]
    new_modules: tuple[str, ...]
    peft_task: str = "SEQ_CLS"
    decoder: str | None = None

    def inside(self, name: str) -> bool:
        """Say whether the module or parameter of this name belongs to the encoder, or to the decoder beside it."""
        return name.startswith(tuple(f"{part}." for part in (self.encoder, self.decoder) if part is not None))

    def is_new(self, parameter: str) -> bool:
        """Say whether the parameter of this name belongs to a newly initialised module."""
        return parameter.startswith(tuple(f"{module}." for module in self.new_modules))


def unwrapped(model: Any) -> Any:
    """Return the model within peft's wrapper, whose layers may hold an adapter; `model` itself where there is none."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
