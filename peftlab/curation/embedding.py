"""Frozen pooled embeddings of any texts, each text embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.curation.rows import Embed
from peftlab.data.tokens import tokenise
from peftlab.encoders.load import HeadShape, choose_pooling, load_classifier
from peftlab.evaluation.forward import pooled_features

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from peftlab.recipe.records import Encoder


def frozen_embedder(encoder: Encoder, folder: Path, tokenizer: Any, *, device: torch.device, batch_size: int) -> Embed:
    """Return a function that embeds texts with the encoder in `folder`, pooled as the recipe says.

    Mean pooling stands in where the recipe uses an architecture's own head. The encoder is loaded at the first call,
    and a text that was embedded is remembered. Draws nothing from torch's global generator.
    """
    known: dict[tuple[str, str | None], NDArray[np.float32]] = {}

    @cache
    def model() -> Any:
        import torch

        pooled = encoder
        if choose_pooling(encoder, folder) == "native":
            pooled = encoder.model_copy(update={"pooling": "mean"})
        with torch.random.fork_rng(devices=[]):
            loaded = load_classifier(pooled, folder, HeadShape(2, 0.0), device=device)
        return loaded.model if encoder.load_in != "full" else loaded.model.to(device)

    def embed(texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[np.float32]:
        keys = list(zip(texts, [None] * len(texts) if pairs is None else pairs, strict=True))
        new = list(dict.fromkeys(key for key in keys if key not in known))
        if new:
            seconds = None if pairs is None else [pair or "" for _, pair in new]
            tokens = tokenise(tokenizer, [text for text, _ in new], seconds, encoder.max_length)
            features = pooled_features(model(), tokens, batch_size=batch_size, device=device)
            known.update(zip(new, features, strict=True))
        return np.stack([known[key] for key in keys])

    return embed
