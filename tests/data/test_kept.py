"""Rows kept on disk are those that were given, in whatever way they are asked for."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftlab.data import kept
from peftlab.data.kept import Chosen, Column, Joined, Kept, Numbers
from peftlab.errors import DataError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.dates()
    | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
SIZE = 2500  # more than two stretches


@given(st.lists(st.tuples(VALUES, VALUES), max_size=20))
def test_rows_of_any_values_come_back_as_they_were(rows: list[tuple[object, object]]) -> None:
    found = Kept(rows)
    assert len(found) == len(rows)
    assert list(found) == [found[place] for place in range(len(rows))] == rows
    assert [type(value) for row in found for value in row] == [type(value) for row in rows for value in row]


def test_a_value_that_no_file_takes_stays_itself() -> None:
    rows = [(date(2026, 1, 2), "a"), ("b", Decimal("1.5")), ("half \ud83d", None)]
    assert Kept(rows) == rows


@pytest.fixture(scope="module")
def rows() -> Kept:
    return Kept((f"text {number}", number) for number in range(SIZE))


def test_single_rows_slices_and_columns_are_those_of_a_list(rows: Kept) -> None:
    listed = [(f"text {number}", number) for number in range(SIZE)]
    assert rows == listed
    assert rows[-1] == listed[-1]
    for cut in (
        slice(None, 3),
        slice(1000, 1100),
        slice(-2, None),
        slice(None, None, 700),
        slice(9, 2),
        slice(9, 2, -3),
    ):
        assert rows[cut] == listed[cut]
    numbers = Column(rows, 1)
    assert numbers == range(SIZE)
    assert numbers[1020:1030] == list(range(1020, 1030))
    assert rows != listed[:-1]
    assert numbers != [*range(SIZE - 1), -1]


@pytest.mark.parametrize("place", [SIZE, -SIZE - 1])
def test_a_row_that_is_not_there_is_an_index_error(rows: Kept, place: int) -> None:
    with pytest.raises(IndexError, match=f"place {place} of {SIZE:d}"):
        rows[place]


@given(st.lists(st.integers(0, SIZE - 1), max_size=30), st.integers(0, SIZE - 30))
def test_chosen_rows_come_in_the_order_of_their_places(rows: Kept, places: list[int], start: int) -> None:
    numbers = Column(rows, 1)
    assert Chosen[Any](numbers, np.asarray(places, np.uint32)) == places
    assert Chosen[Any](numbers, np.arange(start, start + 30, dtype=np.uint32)) == range(start, start + 30)
    assert Chosen(numbers, np.asarray(places, np.uint32), made=str) == [str(place) for place in places]


@given(st.lists(st.integers(), max_size=5), st.lists(st.integers(), max_size=5), st.slices(10))
def test_joined_rows_are_those_of_both(first: list[int], second: list[int], cut: slice) -> None:
    joined = Joined(first, second)
    assert joined == [*first, *second]
    assert joined[cut] == [*first, *second][cut]


def test_the_file_has_no_name_and_is_closed_with_its_last_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = Kept([("x",)] * 10)
    column = Column(found, 0)
    number = found._file
    del found
    gc.collect()
    assert list(column) == ["x"] * 10
    assert os.fstat(number).st_nlink == 0
    assert list(tmp_path.iterdir()) == []
    del column
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


class Full:
    """A file on a disk without room."""

    def write(self, content: bytes) -> int:  # noqa: ARG002 as of a file
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        """As of a file."""


def many_numbers() -> None:
    Numbers(np.int32).extend(np.zeros(1 << 20, np.int32))


@pytest.mark.parametrize("write", [lambda: Kept([("x",)]), many_numbers], ids=["rows", "numbers"])
def test_a_full_disk_is_a_sentence(write: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(DataError, match=r"rows cannot be kept in \S+ \(No space left on device\); make room there, or"):
        write()


@given(st.lists(st.lists(st.integers(-9, 9), max_size=50), max_size=9), st.sampled_from([16, 1 << 20]))
def test_numbers_are_the_same_in_memory_and_on_disk(parts: list[list[int]], small: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "_SMALL", small)
        numbers = Numbers(np.int32)
        for part in parts:
            numbers.extend(np.asarray(part, np.int32))
        found = numbers.array()
    assert found.dtype == np.int32
    assert found.tolist() == [number for part in parts for number in part]
