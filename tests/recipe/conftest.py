"""Recipe files for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SOUND = """\
[encoder]
name = "bundled:minilm-en"

[task]
name = "classification"

[data]
source = "builtin:tickets-en"

[method]
name = "lora"
r = 4
"""


@pytest.fixture
def recipe_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return `write(text=SOUND)`, which writes recipe.toml into the working folder and gives its relative path."""
    monkeypatch.chdir(tmp_path)

    def write(text: str = SOUND) -> Path:
        path = Path("recipe.toml")
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return write


@pytest.fixture
def with_sections() -> Callable[..., str]:
    """Return `make(extra)`: a sound recipe followed by `extra`."""
    return lambda extra: f"{SOUND}\n{extra}"
