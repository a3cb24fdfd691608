"""What a run records of the machine and process that it ran in."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no record of a process's own peak")
def test_the_peak_of_a_process_is_not_that_of_its_parent() -> None:
    """A run that a large program starts is charged for its own memory."""
    ballast = np.ones(400_000_000 // 8)
    line = "from peftlab.runs.environment import peak_resident_bytes as p; print(p())"
    peak = int(subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout)
    assert 5_000_000 < peak < ballast.nbytes / 2
