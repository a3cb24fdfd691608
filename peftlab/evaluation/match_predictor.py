"""A matching run as a function from texts to ranked candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.match_scores import Embedded, ranking

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""From texts to their embeddings of length 1, [texts, hidden size]."""


@dataclass(frozen=True)
class MatchPredictor:
    """A model that ranks `candidates`, whose embeddings are `vectors`; `shown`: how many of them it gives a text."""

    embed: Embed
    candidates: Sequence[str]
    vectors: NDArray[np.float32]
    shown: int
    text_column: str
    pair_column: str | None = None

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return `candidates` of each text, the nearest first, each with `text` and `score`, a cosine similarity."""
        found = ranking(Embedded(self.embed(texts), self.vectors), self.shown)
        return [
            {"candidates": [{"text": self.candidates[place], "score": score} for place, score in row]} for row in found
        ]

    def line(self, text: str, row: Mapping[str, Any]) -> str:
        """Return what is printed for one of `rows`: the nearest candidate, its score, the text."""
        best = row["candidates"][0]
        return f"{best['text']}\t{best['score']:.4f}\t{text}"
