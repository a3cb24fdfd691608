"""A pretraining recipe that takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

WORDS = ["快递到了吗", "我的订单在哪里", "请问发票怎么开", "屏幕坏了要退货", "优惠券不能用", "the parcel is late"]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Return a file of 600 short lines."""
    path = tmp_path / "text.txt"
    lines = [f"{WORDS[row % 6]}，{WORDS[(row * 5 + row // 7) % 6]}。\n" for row in range(600)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def pretrain_recipe(tmp_path: Path, text_file: Path) -> Callable[..., Path]:
    """Return `write(sections="", new=True)`: a recipe for a 2-layer encoder, or without architecture."""

    def write(sections: str = "", *, new: bool = True) -> Path:
        path = tmp_path / "pretrain_tiny.toml"
        shape = "[vocabulary]\nsize = 128\n\n[architecture]\nlayers = 2\nhidden_size = 32\nheads = 2\n\n" if new else ""
        path.write_text(
            f'[corpus]\nfiles = ["{text_file.name}"]\nlength = 32\nheld_out = 0.2\n\n{shape}'
            '[train]\nepochs = 2\nbatch_size = 16\nprecision = "fp32"\nthreads = 1\n\n'
            f"[run]\ntrackers = []\n\n{sections}\n",
            encoding="utf-8",
        )
        return path

    return write
