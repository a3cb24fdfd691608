"""Which passes of a half-precision run are in half precision: those that training rests on, not those it reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab import train
from peftlab.encoders.pooled import PooledClassifier
from peftlab.runs.result import read_result


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_head_starts_and_checkpoints_are_chosen_in_the_arithmetic_of_training(
    precision: str, tiny_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result's validation metrics and the test's are computed in fp32 in either case."""
    pool, seen = PooledClassifier.pool, []

    def noted(self: PooledClassifier, *inputs: Any) -> Any:
        if not self.training:
            seen.append(torch.is_autocast_enabled("cpu"))
        return pool(self, *inputs)

    monkeypatch.setattr(PooledClassifier, "pool", noted)
    recipe = tiny_recipe("lora", sections='[head]\ninit = "probe"\n')
    words = [f"train.precision={precision}", "train.epochs=2", "evaluation.batch_size=64"]
    assert train.main([str(recipe), f"run.dir={tmp_path / 'run'}", *words]) == 0

    result = read_result(tmp_path / "run")
    assert result.status == "ok"
    # Training and validation rows for the head's start, and validation rows after each of the two epochs; then
    # the rest.
    half = seen.count(True)
    assert seen == [True] * half + [False] * (len(seen) - half)
    assert half == 0 if precision == "fp32" else half >= 4
    assert len(seen) - half >= 2
