"""The validation figures of a result: those of the validation that chose the model, where they are its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from peftlab import train
from peftlab.runs.result import read_result
from peftlab.training import solve_gradient

settled = solve_gradient._settled


@pytest.mark.parametrize(
    ("method", "override", "reused"),
    [
        ("lora", "train.precision=fp32", True),
        ("top_layers", "train.precision=fp32", True),
        ("lora", "train.precision=bf16", False),
        ("adalora", "train.precision=fp32", False),
    ],
)
def test_what_validation_measured_is_what_the_kept_model_measures(
    method: str,
    override: str,
    reused: bool,
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Computed anew, the figures are bit for bit the same; not where training computes otherwise, or ranks went."""
    seen: list[tuple[Mapping[str, float] | None, dict[str, float]]] = []

    def watched(*args: Any) -> dict[str, float]:
        seen.append((args[-1], settled(*args[:-1], None)))
        return settled(*args)

    monkeypatch.setattr(solve_gradient, "_settled", watched)
    own = ["method.delta_t=2"] if method == "adalora" else []
    words = [f"run.dir={tmp_path / 'run'}", "train.epochs=4", override, *own]
    assert train.main([str(tiny_recipe(method)), *words]) == 0
    ((known, anew),) = seen
    assert (known is not None) == reused
    assert read_result(tmp_path / "run").metrics.validation == anew
