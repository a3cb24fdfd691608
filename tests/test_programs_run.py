"""Every program does something when it is run as a module, as `accelerate launch -m` does."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from peftlab.cli import VERBS


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_program_run_as_a_module_is_the_program(verb: str) -> None:
    """Without the last two lines of the file, `-m` would do nothing and succeed."""
    module = VERBS[verb][0]
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert f"peftlab {verb}" in done.stdout
    assert callable(importlib.import_module(module).main)
