"""What becomes of freed memory, where glibc hands it out: training keeps it, the preparation of data gives it back.

By itself glibc maps every large tensor anew and unmaps it when it is freed, so that each step of a training on a CPU
pays for the same pages again: some 17,000 page faults a LoRA step of MiniLM with 32 texts of 32 tokens, next to none
where it is kept. And it keeps freed arrays of up to 32 MB, of each stage that rows pass through, however few are used.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The numbers of malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_NEVER = -1
_LARGEST = 1 << 30
_USUAL_MMAP = 32 << 20
"""What glibc's own threshold grows to by itself, in bytes."""
_SMALL = 1 << 20
"""Bytes of an array that is not worth a mapping of its own."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While this lasts, keep freed memory for what is allocated next; afterwards give it back to the system.

    Does nothing where another allocator than glibc's is at work.
    """
    with _thresholds(mapped=_LARGEST, trimmed=_NEVER):
        yield


@contextmanager
def freed_memory_returned() -> Iterator[None]:
    """While this lasts, an array of 1 MB or more goes back to the system as soon as it is freed.

    Does nothing where another allocator than glibc's is at work.
    """
    with _thresholds(mapped=_SMALL, trimmed=2 * _SMALL):
        yield


@contextmanager
def _thresholds(*, mapped: int, trimmed: int) -> Iterator[None]:
    """While this lasts, map what has `mapped` bytes, and give back what is free at the heap's end beyond `trimmed`."""
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, mapped)
    libc.mallopt(_TRIM_THRESHOLD, trimmed)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL_MMAP)
        libc.malloc_trim(0)


def _glibc() -> Any:
    """Return the functions of the C library where it is glibc; None elsewhere."""
    if platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
