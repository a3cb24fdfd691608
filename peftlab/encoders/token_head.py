"""An encoder with a head on every token, and perhaps a linear-chain CRF over the words of a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.encoders.load import HeadShape, LoadedEncoder, load_native
from peftlab.encoders.trainable import keep_in_fp32
from peftlab.errors import MissingPackage

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftlab.recipe.records import Encoder

CRF = "crf"
"""The module of the CRF in a model that has one."""


def load_tagger(
    encoder: Encoder,
    folder: Path,
    tags: Sequence[str],
    dropout: float,
    *,
    crf: bool,
    device: torch.device | None = None,
) -> LoadedEncoder:
    """Load the encoder in `folder` as transformers' own token classifier, a logit for each of `tags` a token.

    With `crf` the model also has the transitions of a CRF (Lafferty et al. 2001; the package pytorch-crf): start, end
    and tag-to-tag scores, trained and saved with the head. The forward pass does not use them; `crf_of` finds them.
    Head and CRF are drawn from torch's global generator. Raises as `load_classifier`, and MissingPackage.
    """
    from transformers import AutoModelForTokenClassification

    if crf:
        try:
            import torchcrf
        except ImportError as error:
            raise MissingPackage(
                'task.crf needs pytorch-crf, which is not installed; run: pip install "peftlab[tagging]"'
            ) from error
    loaded = load_native(encoder, folder, HeadShape(len(tags), dropout), AutoModelForTokenClassification, device=device)
    model: Any = loaded.model
    model.config.id2label = dict(enumerate(tags))
    model.config.label2id = {tag: index for index, tag in enumerate(tags)}
    anatomy = replace(loaded.anatomy, peft_task="TOKEN_CLS")
    if not crf:
        return replace(loaded, anatomy=anatomy)
    model.add_module(CRF, torchcrf.CRF(len(tags), batch_first=True))
    keep_in_fp32(model.crf)
    if encoder.load_in != "full" and device is not None:
        model.crf.to(device)
    anatomy = replace(anatomy, head=(*anatomy.head, CRF), new_modules=(*anatomy.new_modules, CRF))
    return replace(loaded, anatomy=anatomy)


def tags_of(model: nn.Module) -> tuple[str, ...]:
    """Return the tags of a model of `load_tagger`, whatever wraps it, in the order of its logits."""
    wrapped: Any = model
    names = wrapped.config.id2label
    return tuple(names[index] for index in range(len(names)))


def crf_of(model: nn.Module) -> Any:
    """Return the CRF that is trained in `model`, whatever wraps it; None where it has none."""
    return trained_module(model, CRF)


def trained_module(model: nn.Module, name: str) -> Any:
    """Return the trained copy of the outermost module `name` of `model`, whatever wraps it; None where it has none."""
    from peft.utils import ModulesToSaveWrapper

    wrapped: Any = model
    inner: Any = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
    found = getattr(inner, name, None)
    if isinstance(found, ModulesToSaveWrapper):
        return found.modules_to_save[found.active_adapters[0]]
    return found
