"""A recipe as written: its values, and the place of every key, so that each mistake can say where it stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from peftlab.errors import Mistake, RecipeError
from peftlab.recipe.overrides import Overridden, Override, apply_overrides, parse_override
from peftlab.recipe.toml_places import KeyPath, key_lines


@dataclass(frozen=True)
class Finding:
    """A mistake by its key path, before its place is looked up."""

    path: KeyPath
    expected: str
    suggestion: str | None = None


@dataclass(frozen=True)
class Source:
    """What the recipe file and the overrides say together, and where.

    `lines` has the line of each key that the file gives; `overridden.values` are the values with the overrides set;
    `malformed` are mistakes of overrides that name no key.
    """

    path: Path
    lines: Mapping[KeyPath, int]
    overridden: Overridden
    malformed: tuple[Mistake, ...]

    @property
    def values(self) -> dict[str, Any]:
        """Sections with their keys, untyped."""
        return self.overridden.values

    def override_of(self, path: KeyPath) -> Override | None:
        """Return the override that the value at `path` comes from, if any."""
        place = self._place(path)
        return place if isinstance(place, Override) else None

    def mistakes(self, findings: Iterable[Finding]) -> list[Mistake]:
        """Return `findings` with their places: by line, then what has no line, then overrides in the order given."""
        order = list(self.overridden.by_key.values())

        def rank(finding: Finding) -> tuple[int, int]:
            place = self._place(finding.path)
            if isinstance(place, Override):
                return (2, order.index(place))
            return (1, 0) if place is None else (0, place)

        return [self._mistake(finding) for finding in sorted(findings, key=rank)] + list(self.malformed)

    def _mistake(self, finding: Finding) -> Mistake:
        key = key_text(finding.path)
        place = self._place(finding.path)
        if isinstance(place, Override):
            prefix = "" if place.path == finding.path else f"{key}: "
            return Mistake(self.path, None, f"override '{place.text}'", prefix + finding.expected, finding.suggestion)
        return Mistake(self.path, place, key, finding.expected, finding.suggestion)

    def _place(self, path: KeyPath) -> int | Override | None:
        for length in range(len(path), 0, -1):
            place = self.overridden.by_key.get(path[:length]) or self.lines.get(path[:length])
            if place is not None:
                return place
        return None


def key_text(path: KeyPath) -> str:
    """Return `path` as written in TOML, without positions in arrays."""
    keys = [part for part in path if isinstance(part, str)]
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"' for key in keys)


def read_source(path: Path, overrides: Sequence[str], *, kind: str = "recipe") -> Source:
    """Read the TOML file at `path` and set `overrides`; RecipeError where the file cannot be read or is no TOML.

    `kind` says in mistakes what the file was to be.
    """
    text = _read_text(path, kind)
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        raise RecipeError([_syntax_mistake(path, text, str(error))]) from None
    except RecursionError:
        raise RecipeError([Mistake(path, None, "syntax", "arrays or tables are nested too deeply")]) from None
    parsed: list[Override] = []
    malformed: list[Mistake] = []
    for override in overrides:
        try:
            parsed.append(parse_override(override))
        except ValueError as error:
            malformed.append(Mistake(path, None, f"override '{override}'", str(error)))
    overridden = apply_overrides(values, parsed)
    hidden = {override.path for override in parsed}
    lines = {
        key: line
        for key, line in key_lines(text).items()
        if not any(key[:length] in hidden for length in range(1, len(key) + 1))
    }
    return Source(path, lines, overridden, tuple(malformed))


def _read_text(path: Path, kind: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near = get_close_matches(path.name, [file.name for file in path.parent.glob("*.toml")], n=1)
        listed = "`peftlab list` names the recipes" if kind == "recipe" else None
        suggestion = f"did you mean {path.with_name(near[0])}?" if near else listed
        raise RecipeError([Mistake(path, None, kind, "there is no such file", suggestion)]) from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise RecipeError([Mistake(path, None, kind, f"cannot be read: {reason}")]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        expected = f"expected UTF-8 text, found the byte 0x{error.object[error.start]:02x}"
        raise RecipeError([Mistake(path, line, "encoding", expected, "save the file as UTF-8")]) from None


_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_ADVICE = (
    (r"Cannot overwrite a value", "a key is given twice"),
    (r"Duplicate inline table key (.*)", r"the key \1 is given twice"),
    (r"Cannot declare \((.*?),?\) twice", r"the section \1 is given twice"),
    (r"Cannot redefine namespace .*", "the section is given twice"),
    (r"Cannot mutate immutable namespace .*", "an inline table cannot be added to"),
    (r"Expected '=' after a key in a key/value pair", "expected key = value"),
    (r"Invalid initial character for a key part", "expected a key, or a value on this line"),
    (r"Invalid value", "expected a value: text in quotes, a number, true, false, or a list in brackets"),
    (r"Invalid statement", "expected [section] or key = value"),
    (r"Expected newline or end of document after a statement", "expected the end of the line; text needs quotes"),
    (r"Unterminated string|Expected \"'\"", "the text has no closing quote"),
    (r"Illegal character .*", "the text has no closing quote, or holds a character that must be escaped"),
    (r"Unescaped '\\' in a string", r"a backslash in text must be doubled, or the text put in 'single quotes'"),
    (r"Unclosed array", "the list has no closing bracket"),
    (r"Unclosed inline table", "the inline table has no closing brace"),
)


def _syntax_mistake(path: Path, text: str, message: str) -> Mistake:
    """Word the message of `tomllib`; one it may add later is passed on as it is."""
    place = _PLACE.search(message)
    what = _PLACE.sub("", message)
    for pattern, words in _ADVICE:
        if match := re.fullmatch(pattern, what):
            what = match.expand(words)
            break
    if place is None or place.group(1) is None:
        return Mistake(path, len(text.rstrip("\n").split("\n")), "syntax", what)
    return Mistake(path, int(place.group(1)), "syntax", f"column {place.group(2)}: {what}")
