"""A run that answers questions on passages as a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftlab.evaluation.answer_scores import Found

Find = Callable[[Sequence[str], Sequence[str]], Found]
"""From passages and the question on each to the best spans."""


@dataclass(frozen=True)
class AnswerPredictor:
    """A model that answers a question (`pair_column`) from a passage (`text_column`)."""

    find: Find
    text_column: str
    pair_column: str

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return `answer`, its `start` and `end` in characters of the passage, and its `margin` over no answer.

        Where none is given the answer is empty, and its place None.
        """
        found = self.find(texts, pairs or [])
        answers = found.texts(texts)
        places = zip(found.starts.tolist(), found.ends.tolist(), found.margins.tolist(), strict=True)
        return [
            {"answer": answer, "start": start if answer else None, "end": end if answer else None, "margin": margin}
            for answer, (start, end, margin) in zip(answers, places, strict=True)
        ]

    def line(self, text: str, row: Mapping[str, Any]) -> str:
        """Return what is printed for one of `rows`: the answer, its margin, the passage."""
        return f"{row['answer'] or '-'}\t{row['margin']:.4f}\t{text}"
