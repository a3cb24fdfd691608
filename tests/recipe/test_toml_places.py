"""Every key is found on the line where a person reads it, whatever the layout."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from peftlab.recipe.toml_places import KeyPath, key_lines


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every key and array element below `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, item in items:
        yield (*path, part)
        yield from paths_of(item, (*path, part))


def test_keys_of_a_table_stand_on_their_lines() -> None:
    lines = key_lines("# a comment\n\n[train]\nepochs = 3 # [not] = a key\n\nseed = 1\n")
    assert lines == {("train",): 3, ("train", "epochs"): 4, ("train", "seed"): 6}


def test_a_dotted_key_names_its_tables_where_they_are_first_mentioned() -> None:
    lines = key_lines("data.checks.imbalance = 'stop'\ndata.text = 'a'\n")
    assert lines == {
        ("data",): 1,
        ("data", "checks"): 1,
        ("data", "checks", "imbalance"): 1,
        ("data", "text"): 2,
    }


def test_a_header_says_where_its_table_stands_also_after_a_table_inside_it() -> None:
    lines = key_lines("[data.checks]\nimbalance = 'stop'\n[data]\ntext = 'a'\n")
    assert lines[("data",)] == 3
    assert lines[("data", "checks")] == 1


def test_inline_tables_and_arrays_over_several_lines_have_a_line_for_each_element() -> None:
    text = "a = [ # ]\n  1,\n\n  [2,\n  3], { q = 1, w.e = ['}'] },\n]\nb = 1\n"
    lines = key_lines(text)
    assert lines[("a", 0)] == 2
    assert lines[("a", 1)] == lines[("a", 1, 0)] == 4
    assert lines[("a", 1, 1)] == lines[("a", 2)] == lines[("a", 2, "w", "e", 0)] == 5
    assert lines[("b",)] == 7


def test_brackets_quotes_and_equals_signs_inside_strings_mean_nothing() -> None:
    text = 'a = "x\\"] # = \'"\nb = """\n[b]\nc = 1\\"""\n"""""\nd = \'\'\'\n"""\n[x]\'\'\'\'\'\ne = \'\\\'\nf = 1\n'
    assert key_lines(text) == {("a",): 1, ("b",): 2, ("d",): 6, ("e",): 9, ("f",): 10}
    assert set(tomllib.loads(text)) == {"a", "b", "d", "e", "f"}


def test_quoted_keys_are_given_by_their_meaning() -> None:
    lines = key_lines('[ "a b" . \'c.d\' ]\n"\\u00e9\\"" = 1\n')
    assert lines == {("a b",): 1, ("a b", "c.d"): 1, ("a b", "c.d", 'é"'): 2}


def test_each_table_of_an_array_of_tables_has_its_own_place() -> None:
    text = "[[a]]\nn = 1\n[[a.b]]\nm = 1\n[[a]]\nn = 2\n[[a.b]]\nm = 2\n[a.b.c]\nz = 1979-05-27 07:32:00\n"
    lines = key_lines(text)
    assert (lines[("a", 0, "n")], lines[("a", 1, "n")]) == (2, 6)
    assert (lines[("a", 0, "b", 0, "m")], lines[("a", 1, "b", 0, "m")]) == (4, 8)
    assert lines[("a", 1, "b", 0, "c", "z")] == 10
    assert set(lines) == set(paths_of(tomllib.loads(text)))


def test_windows_line_ends_count_as_one_line() -> None:
    assert key_lines('a = """\r\nx\r\n"""\r\nb = 1\r\n') == {("a",): 1, ("b",): 4}


@dataclass
class Writer:
    """TOML written piece by piece, with the line of each key noted as it is written."""

    text: str = ""
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def put(self, piece: str) -> None:
        self.text += piece

    def note(self, path: KeyPath) -> None:
        for length in range(1, len(path)):
            self.lines.setdefault(path[:length], self.text.count("\n") + 1)
        self.lines[path] = self.text.count("\n") + 1


SCALARS = st.sampled_from(
    [
        "1",
        "-0.5e3",
        "true",
        "inf",
        "0xff",
        "'a#b'",
        '"[x] = {\\" }"',
        "'''\n]\n'''",
        '"""\n\\"""\n=""""',
        "1979-05-27 07:32:00Z",
    ]
)
GAPS = st.sampled_from(["", " ", "\n", "# a [comment] = '\n", "\n\n  "])
BARE = st.sampled_from("abcdefgh")


def spelt(draw: st.DrawFn, key: str) -> str:
    return draw(st.sampled_from([key, f'"{key}"', f"'{key}'", f'"\\u{ord(key):04x}"']))


def write_value(draw: st.DrawFn, out: Writer, path: KeyPath, depth: int) -> None:
    kind = draw(st.sampled_from(["scalar", "scalar", "list", "table"])) if depth else "scalar"
    if kind == "scalar":
        out.put(draw(SCALARS))
    elif kind == "list":
        out.put("[")
        for index in range(draw(st.integers(0, 3))):
            out.put(draw(GAPS))
            out.note((*path, index))
            write_value(draw, out, (*path, index), depth - 1)
            out.put(draw(GAPS) + ",")
        out.put(draw(GAPS) + "]")
    else:
        out.put("{ ")
        for index, key in enumerate(draw(st.lists(BARE, unique=True, max_size=3))):
            out.put(", " if index else "")
            out.note((*path, key))
            out.put(f"{spelt(draw, key)} = ")
            write_value(draw, out, (*path, key), depth - 1)
        out.put(" }")


@st.composite
def documents(draw: st.DrawFn) -> Writer:
    """Draw a TOML text of sections with and without nested headers, dotted keys, and values of every kind."""
    out = Writer()
    for section in draw(st.lists(BARE, unique=True, max_size=4)):
        out.put(draw(st.sampled_from(["", "\n", "# c\n", "  "])))
        nested = draw(st.booleans())
        header: KeyPath = (section, "nested") if nested else (section,)
        out.note(header)
        out.put(f"[ {spelt(draw, section)}{' . nested' if nested else ''} ]{draw(st.sampled_from(['', ' # ]']))}\n")
        for key in draw(st.lists(BARE, unique=True, max_size=4)):
            path = (*header, key, "dotted") if draw(st.booleans()) else (*header, key)
            out.note(path)
            out.put(f"{spelt(draw, key)}{' . dotted' if path[-1] == 'dotted' else ''} = ")
            write_value(draw, out, path, depth=2)
            out.put(draw(st.sampled_from(["\n", " # = [\n", "\n\n"])))
    return out


@settings(max_examples=150, deadline=None)
@given(documents(), st.booleans())
def test_every_key_of_any_document_is_on_its_true_line(document: Writer, windows: bool) -> None:
    text = document.text.replace("\n", "\r\n") if windows else document.text
    lines = key_lines(text)
    assert lines == document.lines
    assert set(lines) == set(paths_of(tomllib.loads(text)))
