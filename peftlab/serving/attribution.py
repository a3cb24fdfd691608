"""The words that mattered: what the probability of a label loses when a word is left out.

Occlusion (Zeiler and Fergus 2014, arXiv 1311.2901; for words Li, Monroe and Jurafsky 2016, arXiv 1612.08220): one more
prediction a word, through the same model that gave the answer, so it holds for every model that gives probabilities,
ONNX graphs and TF-IDF included, and needs no gradient. It says what the model would have said without the word; of two
words that say the same thing, each may seem to do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# A run of letters and digits, or one character of a script that is written without spaces between words.
_NO_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}]+(?:['’-][^\W{_NO_SPACES}]+)*")


@dataclass(frozen=True)
class Span:
    """A stretch of a text that is left out as one, `text[start:end]`."""

    start: int
    end: int


def word_spans(text: str, most: int) -> list[Span]:
    """Return the words of `text`, neighbours joined evenly where there are more than `most`.

    Chinese and Japanese characters are a word each. What lies between words belongs to none, unless they were joined.
    """
    words = [Span(*match.span()) for match in _WORD.finditer(text)]
    size = -(-len(words) // most)
    if size <= 1:
        return words
    return [Span(words[at].start, words[min(at + size, len(words)) - 1].end) for at in range(0, len(words), size)]


def without(text: str, spans: Sequence[Span]) -> list[str]:
    """Return `text` without each of `spans`; a lone word leaves a full stop behind, since no model reads nothing."""
    left = [f"{text[: span.start]}{text[span.end :]}" for span in spans]
    return [one if one.strip() else "." for one in left]


def pieces(text: str, spans: Sequence[Span], effects: Sequence[float]) -> list[tuple[str, float | None]]:
    """Return all of `text` in order: each span with its effect, and what lies between them with None."""
    found: list[tuple[str, float | None]] = []
    end = 0
    for span, effect in zip(spans, effects, strict=True):
        if span.start > end:
            found.append((text[end : span.start], None))
        found.append((text[span.start : span.end], effect))
        end = span.end
    if end < len(text):
        found.append((text[end:], None))
    return found
