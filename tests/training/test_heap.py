"""Freed memory that a training keeps."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from peftlab.training import heap

VALUES = 16 << 20
"""64 MB in fp32: above the size that glibc ever keeps by itself."""


def _faults() -> int:
    """Return the page faults of writing a large tensor once tensors of its size were allocated and freed before."""
    counts = []
    for _ in range(10):  # memory with an alignment needs some rounds before what was freed is large enough
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(VALUES).add_(1)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counts[-3:])


def _resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


@pytest.mark.skipif(heap._glibc() is None, reason="only glibc's allocator is told to keep what is freed")
def test_what_a_training_frees_is_used_again_and_given_back_afterwards() -> None:
    pages = VALUES * 4 // resource.getpagesize()
    with heap.freed_memory_kept():
        assert _faults() < pages // 20
        kept = _resident()
    assert kept - _resident() > VALUES * 4 // 2


_STAGES = """
import numpy
from peftlab.training import heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def grown():
    numpy.ones(1 << 22)  # 32 MB: what is smaller comes from the heap from now on
    before, held = resident(), []
    arrays = []
    for _ in range(8):
        arrays.append(numpy.ones(1 << 19))  # 4 MB
        held.append(numpy.ones(1 << 10))  # lies behind it in the heap
    del arrays
    return resident() - before

with heap.freed_memory_returned():
    returned = grown()
print(grown(), returned)
"""


@pytest.mark.skipif(heap._glibc() is None, reason="only glibc's allocator is told to give back what is freed")
def test_what_the_preparation_of_data_frees_is_given_back_at_once() -> None:
    """Eight arrays of 4 MB are freed under small ones that stay: all of that is kept without it."""
    ran = subprocess.run([sys.executable, "-c", _STAGES], capture_output=True, text=True, check=True)
    kept, returned = map(int, ran.stdout.split())
    assert kept > 24 << 20
    assert returned < 4 << 20


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert heap._glibc() is None
    with heap.freed_memory_kept(), heap.freed_memory_returned():
        pass
