"""A finished run as a function from texts to labels and probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import tokenise
from peftlab.encoders.load import HeadShape, load_classifier, load_tokenizer
from peftlab.encoders.saved import load_trained
from peftlab.encoders.source import find_again
from peftlab.evaluation.decisions import predicted_labels, probabilities
from peftlab.evaluation.forward import logits_of
from peftlab.recipe.plugins import load_plugin
from peftlab.runs.folder import run_recipe
from peftlab.runs.model_record import TOKENIZER, TRAINED, ModelRecord, read_model_record

if TYPE_CHECKING:
    from peftlab.recipe.records import Recipe

Logits = Callable[[Sequence[str], Sequence[str] | None], NDArray[np.float32]]


@dataclass(frozen=True)
class Predictor:
    """A run's model. `logits(texts, pairs)` gives [texts, labels]; `pairs` says whether it needs second texts."""

    labels: tuple[str, ...]
    multi_label: bool
    threshold: float
    pairs: bool
    logits: Logits

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return `label` (a list of labels for multi-label runs) and `probabilities` of each text."""
        chances = probabilities(self.logits(texts, pairs), multi_label=self.multi_label)
        decided = predicted_labels(chances, multi_label=self.multi_label, threshold=self.threshold)
        return [
            {"label": self._named(label), "probabilities": dict(zip(self.labels, row.tolist(), strict=True))}
            for label, row in zip(decided, chances, strict=True)
        ]

    def _named(self, label: Any) -> str | list[str]:
        if not self.multi_label:
            return self.labels[int(label)]
        return [name for name, chosen in zip(self.labels, label, strict=True) if chosen]


def load_predictor(folder: Path) -> Predictor:
    """Load the run in `folder`; RunError or EncoderError where it is not whole, or its encoder has changed."""
    record, recipe = read_model_record(folder), run_recipe(folder)
    method = load_plugin("methods", recipe.method.name)
    if record.encoder is None:
        logits: Logits = partial(method.logits, method.load(folder / TRAINED))
    else:
        logits = _through_encoder(folder, record, recipe)
    return Predictor(
        labels=record.labels,
        multi_label=record.multi_label,
        threshold=getattr(recipe.task.config, "threshold", 0.5),
        pairs=recipe.data.pair is not None,
        logits=logits,
    )


def _through_encoder(folder: Path, record: ModelRecord, recipe: Recipe) -> Logits:
    import torch

    known, settings = record.encoder, recipe.encoder
    if known is None or settings is None:
        raise AssertionError("called for runs with an encoder")
    files = find_again(known.used, known.revision, known.sha256, Path(known.folder))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # The pooling that training came to; `auto` might come out differently with other files beside the weights.
    settings = settings.model_copy(update={"pooling": known.pooling})
    loaded = load_classifier(settings, files.folder, HeadShape(len(record.labels), recipe.head.dropout), device=device)
    method = load_plugin("methods", recipe.method.name)
    attach = partial(method.attach, config=recipe.method.config, anatomy=loaded.anatomy)
    model = load_trained(loaded.model, folder / TRAINED, attach).to(device)
    tokenizer = load_tokenizer(folder / TOKENIZER)

    def logits(texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[np.float32]:
        tokens = tokenise(tokenizer, texts, pairs, settings.max_length)
        return logits_of(model, tokens, batch_size=recipe.evaluation.batch_size, device=device)

    return logits
