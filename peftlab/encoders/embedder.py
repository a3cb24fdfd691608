"""An encoder as an embedder of texts: pooled, of length 1, with nothing new in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.encoders.load import HeadShape, LoadedEncoder, choose_pooling, load_classifier

if TYPE_CHECKING:
    import torch

    from peftlab.recipe.records import Encoder

_FLAGS = ("is_loaded_in_8bit", "is_loaded_in_4bit")


def load_embedder(encoder: Encoder, folder: Path, *, device: torch.device | None = None) -> LoadedEncoder:
    """Load the weights in `folder` as a `PooledEmbedder`, in evaluation mode.

    The pooling is the recipe's, or the one that a sentence-transformers folder states, else `mean`. `device` is needed
    for 8-bit and 4-bit weights only. Raises as `load_classifier`.
    """
    from peftlab.encoders.pooled import PooledEmbedder

    stated = choose_pooling(encoder, folder)
    pooling = "mean" if stated == "native" else stated
    settings = encoder.model_copy(update={"pooling": pooling})
    loaded = load_classifier(settings, folder, HeadShape(1, 0.0), device=device)
    under: Any = loaded.model
    model = PooledEmbedder(under.encoder, pooling)
    # peft asks the outermost module; unanswered it would take 8-bit weights for plain ones, and merge into bytes.
    for flag in _FLAGS:
        setattr(model, flag, bool(getattr(under, flag, False)))
    new = tuple(name for name in loaded.anatomy.new_modules if name not in loaded.anatomy.head)
    anatomy = replace(loaded.anatomy, head=(), new_modules=new, peft_task="FEATURE_EXTRACTION")
    return LoadedEncoder(model.eval(), anatomy, pooling)
