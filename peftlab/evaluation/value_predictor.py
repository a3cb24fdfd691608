"""A run that gives a number for each text as a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ValuePredictor:
    """A model that gives a number for each of some texts, or pairs of texts where there is a `pair_column`."""

    values: Callable[[Sequence[str], Sequence[str] | None], Sequence[float]]
    text_column: str
    pair_column: str | None

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return `value`, the predicted number, of each text."""
        return [{"value": value} for value in self.values(texts, pairs)]

    def line(self, text: str, row: Mapping[str, Any]) -> str:
        """Return what is printed for one of `rows`: the number, and the text."""
        return f"{row['value']:.4f}\t{text}"
