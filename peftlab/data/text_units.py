"""A text as the words, or the characters, that a tagger reads, each with its place in the text."""

from __future__ import annotations

import re
from typing import NamedTuple

# Written without spaces: kana, ideographs and their extensions, compatibility forms.
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = f"[^\\W_{_ALONE}]"
# An abbreviation with its points; a word with hyphens, points, apostrophes and strokes inside; any other visible sign.
_WORD = re.compile(f"[{_ALONE}]|(?:{_LETTER}\\.){{2,}}|{_LETTER}+(?:[-.,:'’/&]{_LETTER}+)*|\\S")
_CHARACTER = re.compile(r"\S")


class Unit(NamedTuple):
    """A word or character: `text[start:end]`."""

    start: int
    end: int
    text: str


def units(text: str, *, characters: bool) -> list[Unit]:
    """Return the units of `text`, white space left out; with `characters` every other character is one.

    Otherwise words and signs, each character of a script without spaces being a word.
    """
    pattern = _CHARACTER if characters else _WORD
    return [Unit(found.start(), found.end(), found.group()) for found in pattern.finditer(text)]
