"""Label names as matplotlib can draw them: a font that has their characters, or numbers in their place."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BASE_FONT = "DejaVu Sans"

# Families that are looked at first: made for Chinese, and common.
_PREFERRED = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi",
    "Microsoft YaHei",
    "PingFang",
    "SimHei",
)
# Draws a box with the code point in it for any character: as good as no glyph.
_PLACEHOLDER = "Last Resort"


@dataclass(frozen=True)
class DrawnLabels:
    """What to write for each label, the font families to write it in, and a sentence where names became numbers."""

    texts: tuple[str, ...]
    families: tuple[str, ...]
    note: str | None


def drawable_labels(names: Sequence[str], *, longest: int = 32) -> DrawnLabels:
    """Return the names, cut to `longest` columns, with a font for them; their numbers where no installed font has one.

    Chinese characters count two columns. The matplotlib font list is read, nothing in it is changed.
    """
    needed = {ord(character) for name in names for character in name if not character.isspace()}
    missing = needed - _characters_of(BASE_FONT)
    families: tuple[str, ...] = (BASE_FONT,)
    if missing:
        other = _family_with(missing)
        if other is None:
            note = (
                "No installed font has the characters of these label names. Labels are numbered from 0, "
                "as in the per-class table in README.md."
            )
            return DrawnLabels(tuple(str(number) for number in range(len(names))), families, note)
        families = (BASE_FONT, other)
    return DrawnLabels(tuple(_cut(name, longest) for name in names), families, None)


def _family_with(characters: Iterable[int]) -> str | None:
    from matplotlib import font_manager

    wanted = set(characters)
    names = {entry.name for entry in font_manager.fontManager.ttflist if not entry.name.startswith(_PLACEHOLDER)}
    order = sorted(names, key=lambda name: (not name.startswith(_PREFERRED), name))
    return next((name for name in order if wanted <= _characters_of(name)), None)


def _characters_of(family: str) -> set[int]:
    """Return the code points that every face of an installed family has."""
    from matplotlib import font_manager, ft2font

    files = {entry.fname for entry in font_manager.fontManager.ttflist if entry.name == family}
    faces = [set(ft2font.FT2Font(file).get_charmap()) for file in files]
    return set.intersection(*faces) if faces else set()


def _cut(name: str, longest: int) -> str:
    columns = 0
    for index, character in enumerate(name):
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > longest:
            return name[:index].rstrip() + "…"
    return name
