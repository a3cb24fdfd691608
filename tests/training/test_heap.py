"""Freed memory that a training keeps."""

from __future__ import annotations

import platform
import resource
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


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert heap._glibc() is None
    with heap.freed_memory_kept():
        pass
