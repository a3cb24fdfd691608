"""New texts from old ones, letter by letter: slips of the keyboard and of the pinyin input, lost and swapped letters.

Each function takes a text, how many places to change, and the generator that draws them; a text that has no place to
change comes back as it was. Nothing here knows a label, so a curator measures how often the label survives.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from peftlab.curation.folds import is_cjk

_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")

# Initials and finals that southern speakers, and so their input methods, do not keep apart.
_ALIKE = (("zh", "z"), ("ch", "c"), ("sh", "s"), ("l", "n"), ("f", "h"), ("ang", "an"), ("eng", "en"), ("ing", "in"))


def keyboard_slips(text: str, count: int, random: np.random.Generator) -> str:
    """Replace `count` Latin letters by one that is beside them on a QWERTY keyboard."""
    letters = list(text)
    for place in _drawn([place for place, letter in enumerate(letters) if letter.lower() in _beside()], count, random):
        near = _beside()[letters[place].lower()]
        slip = str(near[random.integers(len(near))])
        letters[place] = slip.upper() if letters[place].isupper() else slip
    return "".join(letters)


def pinyin_slips(text: str, count: int, random: np.random.Generator) -> str:
    """Replace `count` Chinese characters by another that is read the same, or nearly so (zh/z, l/n, ang/an, ...)."""
    letters = list(text)
    places = [place for place, letter in enumerate(letters) if "\u4e00" <= letter <= "\u9fff"]
    for place in _drawn(places, count, random):
        same = _homophones(letters[place])
        if same:
            letters[place] = same[random.integers(len(same))]
    return "".join(letters)


def deletion(text: str, count: int, random: np.random.Generator) -> str:
    """Take out `count` words, or letters where the text is Chinese, Japanese or Korean; one always stays."""
    pieces, glue = _pieces(text)
    gone = set(_drawn(range(len(pieces)), min(count, len(pieces) - 1), random))
    return glue.join(piece for place, piece in enumerate(pieces) if place not in gone)


def swap(text: str, count: int, random: np.random.Generator) -> str:
    """Swap `count` pairs of neighbouring words, or letters where the text is Chinese, Japanese or Korean."""
    pieces, glue = _pieces(text)
    for place in _drawn(range(len(pieces) - 1), count, random):
        pieces[place], pieces[place + 1] = pieces[place + 1], pieces[place]
    return glue.join(pieces)


def substitution(text: str, groups: Sequence[Sequence[str]], count: int, random: np.random.Generator) -> str:
    """Replace up to `count` of the words of `groups` that the text has by another word of the same group."""
    found = [(word, group) for group in groups for word in group if _has(text, word)]
    for place in _drawn(range(len(found)), count, random):
        word, group = found[place]
        others = [other for other in group if other != word]
        text = text.replace(word, others[random.integers(len(others))], 1)
    return text


def mixture(text: str, other: str, random: np.random.Generator) -> str:
    """Put two texts one behind the other, in either order."""
    glue = "，" if any(map(is_cjk, text)) else " "
    return glue.join((text, other) if random.random() < 0.5 else (other, text))


def _has(text: str, word: str) -> bool:
    """Say whether `text` has `word`, in languages with spaces as a whole word."""
    place = text.find(word)
    if place < 0 or any(map(is_cjk, word)):
        return place >= 0
    around = text[:place][-1:] + text[place + len(word) :][:1]
    return not any(letter.isalnum() for letter in around)


def _pieces(text: str) -> tuple[list[str], str]:
    words = text.split()
    return (list(text), "") if any(map(is_cjk, text)) or len(words) < 2 else (words, " ")


def _drawn(places: Sequence[int] | range, count: int, random: np.random.Generator) -> list[int]:
    drawn = random.permutation(len(places))[: max(0, count)]
    return sorted(int(places[index]) for index in drawn)


@cache
def _beside() -> dict[str, str]:
    """Return for each key those that touch it."""
    # Each row of keys is set about half a key to the right of the row above it.
    at = {key: (row, place + row / 2) for row, keys in enumerate(_KEYS) for place, key in enumerate(keys)}
    return {
        key: "".join(
            other
            for other, (other_row, other_place) in at.items()
            if other != key and abs(row - other_row) <= 1 and abs(place - other_place) <= 1
        )
        for key, (row, place) in at.items()
    }


@cache
def _readings() -> dict[str, tuple[str, ...]]:
    """Return the common Chinese characters of each reading without its tone; those of GB 2312's first level."""
    from pypinyin import Style, lazy_pinyin

    # GB 2312 lists its 3,755 everyday characters first: rows 16 to 55.
    encoded = (bytes((0xA0 + row, 0xA0 + column)) for row in range(16, 56) for column in range(1, 95))
    common = [code.decode("gb2312", errors="ignore") for code in encoded]
    found: dict[str, list[str]] = {}
    for letter in filter(None, common):
        found.setdefault(lazy_pinyin(letter, style=Style.NORMAL)[0], []).append(letter)
    return {reading: tuple(letters) for reading, letters in found.items()}


@cache
def _homophones(letter: str) -> tuple[str, ...]:
    """Return other everyday characters that are read as `letter` is, or nearly so."""
    from pypinyin import Style, lazy_pinyin

    own = lazy_pinyin(letter, style=Style.NORMAL)[0]
    readings = {own}
    for first, second in _ALIKE:
        for one, other in ((first, second), (second, first)):
            if own.startswith(one) and not (len(one) == 1 and own[:2] == f"{one}h"):
                readings.add(other + own[len(one) :])
            if own.endswith(one):
                readings.add(own[: len(own) - len(one)] + other)
    return tuple(other for reading in sorted(readings) for other in _readings().get(reading, ()) if other != letter)
