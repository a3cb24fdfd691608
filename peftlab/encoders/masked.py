"""An encoder with its masked-language-model head, which is computed at the predicted positions only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import MaskedLMOutput

from peftlab.encoders.anatomy import Anatomy
from peftlab.encoders.load import anatomy_of, quiet_loading, sentences_for
from peftlab.errors import EncoderError


def _distilbert(model: Any, hidden: Tensor) -> Tensor:
    logits: Tensor = model.vocab_projector(model.vocab_layer_norm(model.activation(model.vocab_transform(hidden))))
    return logits


def _electra(model: Any, hidden: Tensor) -> Tensor:
    logits: Tensor = model.generator_lm_head(model.generator_predictions(hidden))
    return logits


_HEADS: Mapping[str, Callable[[Any, Tensor], Tensor]] = {
    "bert": lambda model, hidden: model.cls(hidden),
    "ernie": lambda model, hidden: model.cls(hidden),
    "roberta": lambda model, hidden: model.lm_head(hidden),
    "xlm-roberta": lambda model, hidden: model.lm_head(hidden),
    "camembert": lambda model, hidden: model.lm_head(hidden),
    "albert": lambda model, hidden: model.predictions(hidden),
    "distilbert": _distilbert,
    "electra": _electra,
}
"""Logits over the vocabulary from hidden states, by architecture."""


class MaskedLanguageModel(nn.Module):
    """A transformers masked language model whose head sees the predicted positions and nothing else.

    With 15 % of the positions predicted, the product with the vocabulary, the largest of a small encoder, is computed
    for these alone.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config: Any = model.config
        self._teacher: tuple[Any, ...] = ()

    def learn_from(self, teacher: nn.Module) -> None:
        """Compare the last hidden states with those of `teacher`, an encoder without head, where `whole` is given.

        It is no submodule: neither trained, nor counted, nor saved.
        """
        self._teacher = (teacher.eval(),)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        attention_mask: Tensor | None = None,
        whole: Tensor | None = None,
        **ignored: Any,  # noqa: ARG002 what peft hands on to every model
    ) -> MaskedLMOutput:
        """Return logits [rows, predictions, vocabulary] at `positions` [rows, predictions] of `input_ids`.

        With `whole`, the same texts without masks, the logits are a pair: those, and what the hidden states leave
        unexplained of the teacher's, [rows].
        """
        body = getattr(self.model, self.model.base_model_prefix)
        hidden = body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        there = hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        logits = _HEADS[self.config.model_type](self.model, there)
        if whole is None:
            return MaskedLMOutput(logits=logits)
        with torch.no_grad():
            teacher = self._teacher[0].to(whole.device)
            wanted = teacher(input_ids=whole, attention_mask=attention_mask).last_hidden_state
        return MaskedLMOutput(logits=(logits, unexplained(hidden, wanted)))  # type: ignore[arg-type]


def unexplained(given: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared error of `given` over the variance of `wanted`, [rows], both [rows, tokens, width].

    The variance is that of each dimension over all tokens, so that the few large dimensions of an encoder do not drown
    the others (Ethayarajh 2019, arXiv 1909.00512).
    """
    variance = wanted.float().flatten(0, 1).var(0, unbiased=False).clamp(min=1e-6)
    return ((given.float() - wanted.float()) ** 2 / variance).mean((1, 2))


@dataclass(frozen=True)
class Masked:
    """A masked language model, nothing frozen yet, with the names of its parts."""

    model: MaskedLanguageModel
    anatomy: Anatomy


def new_masked(config: Any) -> Masked:
    """Return a masked language model of this transformers `config` with random weights."""
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_config(config)
    names = {"missing_keys": {f"model.{name}" for name, _ in model.named_parameters()}}
    return _masked(model, names)


def load_masked(folder: Path, *, dropout: float) -> Masked:
    """Load the encoder in `folder` with its masked-language-model head, a new one where the folder has none.

    `dropout` takes the place of the dropout that the folder states. Raises EncoderError where the folder cannot be read
    or the architecture has no known head.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM

    with sentences_for(folder), quiet_loading():
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in _HEADS:
            raise EncoderError(
                f"{folder}: peftlab pretrains encoders of the types {', '.join(_HEADS)}, not {config.model_type}"
            )
        set_dropout(config, dropout)
        model, info = AutoModelForMaskedLM.from_pretrained(
            folder, config=config, output_loading_info=True, local_files_only=True, dtype=torch.float32
        )
    return _masked(model, {"missing_keys": {f"model.{name}" for name in info["missing_keys"]}})


def load_body(folder: Path, dtype: torch.dtype) -> Any:
    """Load the encoder in `folder` without a head, frozen, to teach another one; EncoderError where it has none."""
    from transformers import AutoModel

    with sentences_for(folder), quiet_loading():
        body: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=dtype)
    return body.requires_grad_(requires_grad=False)


def teach(module: nn.Module, teacher: Any, name: str) -> None:
    """Let the masked language model within `module` learn from `teacher`; EncoderError where their widths differ."""
    student = next(part for part in module.modules() if isinstance(part, MaskedLanguageModel))
    if student.config.hidden_size != teacher.config.hidden_size:
        raise EncoderError(
            f"teacher.name: {name} is {teacher.config.hidden_size} wide and the encoder that it is to teach "
            f"{student.config.hidden_size}; their last hidden states can be compared at one width only"
        )
    student.learn_from(teacher)


_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")


def set_dropout(config: Any, dropout: float) -> None:
    """Set every dropout that a transformers `config` of an encoder states."""
    for field in _DROPOUTS:
        if hasattr(config, field):
            setattr(config, field, dropout)


def restore_dropout(config: Any, folder: Path) -> None:
    """Set every dropout of `config` to what the encoder in `folder` states, for whoever fine-tunes it."""
    from transformers import AutoConfig

    stated = AutoConfig.from_pretrained(folder, local_files_only=True)
    for field in _DROPOUTS:
        if hasattr(config, field):
            setattr(config, field, getattr(stated, field))


def _masked(model: Any, info: dict[str, Any]) -> Masked:
    wrapped = MaskedLanguageModel(model)
    prefix = f"model.{model.base_model_prefix}"
    outside = tuple(
        f"model.{name}"
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    )
    missing = tuple(info["missing_keys"])
    # A head that came with the checkpoint stays as it is; only what is new must be trained with a method.
    new = tuple(name for name in outside if any(key.startswith(f"{name}.") for key in missing))
    return Masked(wrapped, anatomy_of(wrapped, prefix, new, info))
