"""Rows kept on disk, so that a set of a million rows takes no more memory than their places in a file."""

from __future__ import annotations

import marshal
import mmap
import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from typing import IO, Any, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import DataError

T = TypeVar("T")
Row = tuple[object, ...]

_AT_ONCE = 1024  # rows read or written at a time where they are wanted in their order
_SMALL = 1 << 20  # bytes of an array that stays in memory
_SPREAD = 4  # times as many values are read as are wanted, rather than each on its own
_FORM = 2  # of marshal: without references between values, which rows do not share


@contextmanager
def _roomy() -> Iterator[None]:
    """Turn a failure to write into a sentence."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"rows cannot be kept in {tempfile.gettempdir()} ({error.strerror}); make room there, or set TMPDIR to a "
            "folder that has some"
        ) from error


class Lazy(Sequence[T]):
    """A sequence whose values are made when they are asked for; a slice of it is a list.

    It equals every sequence of the same values. Subclasses give `__len__`, and `at` or `stretch` or both.
    """

    def at(self, place: int) -> T:
        """Return the value at `place`, 0 <= place < len(self)."""
        return self.stretch(place, place + 1)[0]

    def stretch(self, start: int, end: int) -> list[T]:
        """Return the values from `start` to before `end`."""
        return [self.at(place) for place in range(start, end)]

    @overload
    def __getitem__(self, place: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: SupportsIndex | slice) -> T | list[T]:
        if isinstance(place, slice):
            start, end, step = place.indices(len(self))
            return self.stretch(start, max(start, end)) if step == 1 else [self.at(n) for n in range(start, end, step)]
        number = place.__index__()
        if not -len(self) <= number < len(self):
            raise IndexError(f"place {number} of {len(self)}")
        return self.at(number % len(self))

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self.stretch(start, min(start + _AT_ONCE, len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment] # as of a list


class Kept(Lazy[Row]):
    """Rows in a temporary file without a name, which is gone with the last of its users, also after a crash."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Write `rows`; DataError where the disk has no room for them."""
        self._ends = array("Q", [0])
        self._odd: dict[int, Row] = {}
        with _roomy():
            file = tempfile.TemporaryFile()  # noqa: SIM115 read until the last user is gone
        weakref.finalize(self, file.close)
        numbered = enumerate(rows)
        while some := list(islice(numbered, _AT_ONCE)):
            stored = [self._bytes(number, row) for number, row in some]
            with _roomy():
                file.write(b"".join(stored))
            for one in stored:
                self._ends.append(self._ends[-1] + len(one))
        with _roomy():
            file.flush()
        if self._ends[-1] < 1 << 32:
            self._ends = array("I", self._ends)
        self._file = file.fileno()

    def _bytes(self, number: int, row: Row) -> bytes:
        """Return `row` as bytes: none for a row with a value that has no such form (a date), which stays in memory."""
        try:
            return marshal.dumps(row, _FORM)  # type: ignore[arg-type] # what it does not take is caught
        except ValueError:
            self._odd[number] = row
            return b""

    def __len__(self) -> int:
        return len(self._ends) - 1

    def stretch(self, start: int, end: int) -> list[Row]:
        """Return rows that stand together, by one reading of the file."""
        ends = self._ends[start : end + 1]
        whole = memoryview(os.pread(self._file, ends[-1] - ends[0], ends[0])) if ends else memoryview(b"")
        rows: list[Row] = []
        for number, (first, last) in enumerate(pairwise(ends), start=start):
            stored = whole[first - ends[0] : last - ends[0]]
            rows.append(marshal.loads(stored) if last > first else self._odd[number])
        return rows


class Column(Lazy[object]):
    """One value of each row."""

    def __init__(self, rows: Sequence[Row], place: int) -> None:
        self._rows, self._place = rows, place

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, place: int) -> object:
        """Return the value of one row."""
        return self._rows[place][self._place]

    def stretch(self, start: int, end: int) -> list[object]:
        """Return the values of rows that stand together."""
        return [row[self._place] for row in self._rows[start:end]]


class Chosen(Lazy[T]):
    """Values of another sequence, at `places` [rows], in their order; `made` of each, where it is given."""

    def __init__(self, of: Sequence[Any], places: NDArray[Any], made: Callable[[Any], T] | None = None) -> None:
        self._of, self._places, self._made = of, places, made

    def __len__(self) -> int:
        return len(self._places)

    def at(self, place: int) -> T:
        """Return one value."""
        found = self._of[int(self._places[place])]
        return found if self._made is None else self._made(found)

    def stretch(self, start: int, end: int) -> list[T]:
        """Return several values, read together where they stand close together."""
        places = self._places[start:end]
        first, last = (int(places.min()), int(places.max())) if len(places) else (0, -1)
        if last - first < _SPREAD * len(places):
            around = self._of[first : last + 1]
            found = [around[place - first] for place in places.tolist()]
        else:
            found = [self._of[place] for place in places.tolist()]
        return found if self._made is None else [self._made(one) for one in found]


class Joined(Lazy[T]):
    """The values of one sequence, and those of another behind them."""

    def __init__(self, first: Sequence[T], second: Sequence[T]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def at(self, place: int) -> T:
        """Return one value."""
        before = len(self._first)
        return self._first[place] if place < before else self._second[place - before]

    def stretch(self, start: int, end: int) -> list[T]:
        """Return values that stand together."""
        before = len(self._first)
        return [*self._first[start:end], *self._second[max(start - before, 0) : max(end - before, 0)]]


class Numbers:
    """An array [n] that is added to at its end: in memory while it is small, in a temporary file beyond that."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._dtype = dtype
        self._parts: list[NDArray[Any]] = []
        self._file: IO[bytes] | None = None

    def extend(self, values: NDArray[Any]) -> None:
        """Add `values` [any]; DataError where the disk has no room for them."""
        self._parts.append(np.asarray(values, self._dtype))
        if sum(part.nbytes for part in self._parts) >= _SMALL:
            with _roomy():
                self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 closed by `array`
                self._write(self._file)

    def _write(self, file: IO[bytes]) -> None:
        """Move what is in memory to the end of `file`."""
        for part in self._parts:
            file.write(part.tobytes())
        self._parts = []

    def array(self) -> NDArray[Any]:
        """Return all values; nothing can be added any more. From a file, they cannot be written to."""
        if self._file is None:
            return np.concatenate(self._parts) if self._parts else np.zeros(0, self._dtype)
        with _roomy(), self._file as file:
            self._write(file)
            file.flush()
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), self._dtype)
