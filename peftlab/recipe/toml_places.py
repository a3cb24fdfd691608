"""On which line of a TOML file does each key stand?

The standard reader (`tomllib`) gives values without places. This scanner gives the places and no values: it runs only
over text that `tomllib` has accepted, so it need not judge the text, only find its way through it.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

KeyPath = tuple[str | int, ...]
"""Keys and, inside arrays, 0-based positions: ``("data", "split", 1)``."""

_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_KEY_PART = r"""(?:[^\s.=\[\]"'#{},]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = re.compile(rf"{_KEY_PART}(?:[ \t]*\.[ \t]*{_KEY_PART})*")
# Up to two quotes that are text may stand directly before the three that close a multi-line string.
_VALUE = re.compile(
    r'"""(?:\\.|[^\\])*?""""{0,2}'
    r"|'''.*?''''{0,2}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|[^,\]}#\n]+",
    re.DOTALL,
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the 1-based line of every key, table and array element of `text`, which `tomllib` must have accepted.

    A table with a header stands on the header's line, one without where it is first mentioned.
    """
    return _Scanner(text.replace("\r\n", "\n")).document()


class _Scanner:
    """A position in the text, and the lines found so far."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line_ends = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[KeyPath, int] = {}
        self.tables_in_array: dict[KeyPath, int] = {}

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self.skip_space()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip_space()
        return self.lines

    def header(self) -> KeyPath:
        line = self.line()
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        self.at += brackets
        parts = self.key()
        self.skip_space()
        self.at += brackets
        path = (*self.mention((), parts[:-1], line), parts[-1])
        if brackets == 1:
            self.lines[path] = line
            return path
        self.lines.setdefault(path, line)
        position = self.tables_in_array.get(path, 0)
        self.tables_in_array[path] = position + 1
        self.lines[(*path, position)] = line
        return (*path, position)

    def mention(self, table: KeyPath, parts: tuple[str, ...], line: int) -> KeyPath:
        """Note the tables on the way from `table` along `parts`; a name of an array of tables means its last one."""
        path = table
        for part in parts:
            path = (*path, part)
            self.lines.setdefault(path, line)
            if path in self.tables_in_array:
                path = (*path, self.tables_in_array[path] - 1)
        return path

    def pair(self, table: KeyPath) -> None:
        line = self.line()
        path = self.mention(table, self.key(), line)
        self.skip_space()
        self.at += len("=")
        self.skip_space()
        self.value(path)

    def value(self, path: KeyPath) -> None:
        opening = self.text[self.at]
        if opening == "{":
            self.at += 1
            while not self.closes("}"):
                self.pair(path)
        elif opening == "[":
            self.at += 1
            position = 0
            while not self.closes("]"):
                self.lines[(*path, position)] = self.line()
                self.value((*path, position))
                position += 1
        else:
            self.take(_VALUE)

    def closes(self, bracket: str) -> bool:
        """Step over space, a comma, space; then over `bracket` if it stands there, and say whether it did."""
        self.skip_space()
        if self.text[self.at] == ",":
            self.at += 1
            self.skip_space()
        if self.text[self.at] == bracket:
            self.at += 1
            return True
        return False

    def key(self) -> tuple[str, ...]:
        self.skip_space()
        node = tomllib.loads(f"{self.take(_KEY)} = 0")
        parts: list[str] = []
        while isinstance(node, dict):
            ((part, node),) = node.items()
            parts.append(part)
        return tuple(parts)

    def skip_space(self) -> None:
        self.take(_SPACE)

    def take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"unexpected text on line {self.line()}")
        self.at = match.end()
        return match.group()

    def line(self) -> int:
        return bisect_right(self.line_ends, self.at - 1) + 1
