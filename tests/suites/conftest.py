"""Tiny suites: recipes on the tiny encoder and tickets, and a way to do their runs within the test process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_recipe_text import tiny_recipe_text

from peftlab import train
from peftlab.suites.execute import Ended, never
from peftlab.suites.orders import Order

SUITE = """\
name = "tiny"
title = "Tiny suite"
base = "base.toml"
"""


@pytest.fixture(scope="session")
def write_suite(tiny_encoder: Callable[..., Path], tiny_tickets: Callable[..., Path]) -> Callable[..., Path]:
    """Return `write(folder, more)`: writes base.toml (a head on the tiny encoder) and tiny.toml, whose path it gives.

    `more` is TOML behind name, title and base.
    """

    def write(folder: Path, more: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        recipe = tiny_recipe_text(tiny_encoder(), tiny_tickets(), epochs=3)
        (folder / "base.toml").write_text(recipe, encoding="utf-8")
        path = folder / "tiny.toml"
        path.write_text(SUITE + more, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def in_this_process() -> Callable[..., Ended]:
    """Return what does an order as `execute` does, without a process: for tests of what stands around it."""

    def do(order: Order, work: Path, threads: int | None, stop: Callable[[], bool] = never) -> Ended:
        shutil.rmtree(work / order.name, ignore_errors=True)
        return Ended(train.main([order.recipe, *order.overrides, f"run.dir={work / order.name}"]), "", stopped=False)

    return do
