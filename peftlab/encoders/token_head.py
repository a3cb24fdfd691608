"""An encoder with a head on every token, and perhaps a linear-chain CRF over the words of a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.encoders.anatomy import unwrapped
from peftlab.encoders.load import HeadShape, LoadedEncoder, load_native, native_around
from peftlab.encoders.trainable import keep_in_fp32
from peftlab.errors import MissingPackage

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

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

    loaded = load_native(encoder, folder, HeadShape(len(tags), dropout), AutoModelForTokenClassification, device=device)
    return _tagging(loaded, tags, device if encoder.load_in != "full" else None, crf=crf)


def tagger_around(
    loaded: LoadedEncoder, encoder: Encoder, tags: Sequence[str], dropout: float, *, crf: bool
) -> LoadedEncoder:
    """Return a tagger of its own around the encoder that is in `loaded`: the same module, not a copy.

    The values of head and CRF are arbitrary: a trained part is to be loaded over them. Raises EncoderError where the
    encoder in `loaded` has other parts than a tagger's, which has no pooler.
    """
    from transformers import AutoModelForTokenClassification

    made = native_around(loaded, encoder, HeadShape(len(tags), dropout), AutoModelForTokenClassification)
    device = next(loaded.model.get_submodule(loaded.anatomy.encoder).parameters()).device
    return _tagging(made, tags, device, crf=crf)


def _tagging(loaded: LoadedEncoder, tags: Sequence[str], device: torch.device | None, *, crf: bool) -> LoadedEncoder:
    """Give the model in `loaded` the names of its tags and, with `crf`, a CRF on `device`."""
    model: Any = loaded.model
    model.config.id2label = dict(enumerate(tags))
    model.config.label2id = {tag: index for index, tag in enumerate(tags)}
    anatomy = replace(loaded.anatomy, peft_task="TOKEN_CLS")
    if not crf:
        return replace(loaded, anatomy=anatomy)
    try:
        import torchcrf
    except ImportError as error:
        raise MissingPackage(
            'task.crf needs pytorch-crf, which is not installed; run: pip install "peftlab[tagging]"'
        ) from error
    model.add_module(CRF, torchcrf.CRF(len(tags), batch_first=True))
    keep_in_fp32(model.crf)
    if device is not None:
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

    inner = unwrapped(model)
    found = getattr(inner, name, None)
    if isinstance(found, ModulesToSaveWrapper):
        return found.modules_to_save[found.active_adapters[0]]
    return found


def without_crf(model: nn.Module) -> nn.Module:
    """Return `model` itself without its CRF, where it has one: the forward pass never used it."""
    inner = unwrapped(model)
    if hasattr(inner, CRF):
        delattr(inner, CRF)
    return model


def sentence_losses(logits: Tensor, targets: Tensor, crf: Any, smoothing: float) -> Tensor:
    """Return the loss of each sentence by word, [sentences], in fp32.

    `logits`: [windows, tokens, tags]. `targets`: [sentences, words, 2], where a word stands among all positions of the
    batch, and its tag, both -1 where a sentence has no more words. By `crf`, a CRF of pytorch-crf, or by cross-entropy
    where that is None.
    """
    from torch.nn import functional

    scores = logits.float().reshape(-1, logits.shape[-1])
    mask = targets[..., 1] >= 0
    emissions = scores[targets[..., 0].clamp(min=0)]
    gold = targets[..., 1].clamp(min=0)
    counts = mask.sum(1).clamp(min=1)
    if crf is not None:
        by_sequence: Tensor = -crf(emissions, gold, mask, reduction="none") / counts
        return by_sequence
    each = functional.cross_entropy(emissions.transpose(1, 2), gold, reduction="none", label_smoothing=smoothing)
    return (each * mask).sum(1) / counts
