"""A run that makes texts of texts as a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextPredictor:
    """A model that gives a text for each of some texts; it takes single texts from the column `text_column`."""

    texts: Callable[[Sequence[str]], Sequence[str]]
    text_column: str
    pair_column: str | None = None

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return `target`, the generated text, of each text."""
        return [{"target": made} for made in self.texts(texts)]

    def line(self, text: str, row: Mapping[str, Any]) -> str:
        """Return what is printed for one of `rows`: the generated text, and the text itself."""
        return f"{row['target']}\t{text}"
