"""How tickets are typed in a hurry: slips, dropped characters, neighbouring keys, careless case and punctuation.

Nothing here looks at the label, and words that carry a negation are left readable, so that noise never changes what a
ticket asks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from peftlab.data.tickets.phrases import Language

# random.Random.random() is the one method whose sequence Python promises to keep, so every choice is built on it.
Draw = Callable[[], float]
Item = TypeVar("Item")

_KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: row[max(0, place - 1) : place] + row[place + 1 : place + 2]
    for row in _KEY_ROWS
    for place, key in enumerate(row)
}
_LONG_WORD = re.compile(r"\b[a-z]{5,}\b")
_SENTENCE_START = re.compile(r"(?:^|[.!?]\s+)([a-z])")
# Dropping one of these could turn a ticket round.
_KEEP = frozenset("不没别未无非是才先还只")


def pick(items: Sequence[Item], draw: Draw) -> Item:
    """One of `items`, all equally likely."""
    return items[int(draw() * len(items))]


def type_carelessly(text: str, language: Language, slips: Sequence[tuple[str, str]], draw: Draw) -> str:
    """`text` as a hurried customer of that language would have typed it."""
    if draw() < 0.2:
        text = _slip(text, slips, language, draw)
    return _chinese(text, draw) if language == "zh" else _english(text, draw)


def _slip(text: str, slips: Sequence[tuple[str, str]], language: Language, draw: Draw) -> str:
    """One usual misspelling or homophone, if the text has a word for it."""
    # Chinese has no spaces to find a word by.
    before, after = ("", "") if language == "zh" else (r"(?<![\w'])", r"(?![\w'])")
    found = [(right, wrong) for right, wrong in slips if right in text]
    if not found:
        return text
    right, wrong = pick(found, draw)
    return re.sub(before + re.escape(right) + after, wrong, text, count=1)


def _chinese(text: str, draw: Draw) -> str:
    if draw() < 0.1:
        place = int(draw() * len(text))
        if "\u4e00" <= text[place] <= "\u9fff" and text[place] not in _KEEP:
            text = text[:place] + text[place + 1 :]
    style = draw()
    if style < 0.12:
        text = text.replace("，", ",")
    elif style < 0.24:
        text = text.replace("，", " ").replace("。", " ")
    elif style < 0.28:
        text = text.replace("，", "。。")
    elif style < 0.32:
        text = text.replace("，", "、").replace("？", "?")
    return text.strip()


def _english(text: str, draw: Draw) -> str:
    case = draw()
    if case < 0.4:
        text = _SENTENCE_START.sub(lambda match: match.group().upper(), text)
    elif case < 0.75:
        text = text.lower()
    elif case < 0.77:
        text = text.upper()
    if draw() < 0.25:
        text = _mistype(text, draw)
    if draw() < 0.15:
        text = text.replace(",", "")
    return text.strip()


def _mistype(text: str, draw: Draw) -> str:
    """One slip of the fingers inside a word of five letters or more."""
    words = list(_LONG_WORD.finditer(text))
    if not words:
        return text
    word = pick(words, draw)
    place = word.start() + 1 + int(draw() * (len(word.group()) - 2))
    before, key, after = text[:place], text[place], text[place + 1 :]
    kind = draw()
    if kind < 0.4:
        return before + pick(_NEIGHBOURS[key], draw) + after
    if kind < 0.6:
        return before + after
    if kind < 0.75:
        return before + key + key + after
    return before + after[0] + key + after[1:]
