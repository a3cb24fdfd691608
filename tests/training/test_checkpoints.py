"""Checkpoints: whole, without pickle, and refused where they do not belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab.errors import RunError
from peftlab.training.checkpoints import (
    Checkpoint,
    Progress,
    last_checkpoint,
    load_checkpoint,
    load_weights,
    save_best,
    save_checkpoint,
)


def small_model() -> torch.nn.Module:
    """Return a linear layer whose weights are all trained."""
    return torch.nn.Linear(3, 2)


def checkpoint(step: int, *, best_step: int | None = None, optimizer: Any = None) -> Checkpoint:
    """Return a checkpoint after `step` steps."""
    return Checkpoint(
        progress=Progress(step=step, micro_rows=8, best_step=best_step, best_value=0.5, stale=1, tokens=7, seconds=1.5),
        weights=dict(small_model().named_parameters()),
        optimizer=optimizer or {"state": {}, "param_groups": []},
        random=({"cpu": torch.get_rng_state()},),
        extra={"scaler": None},
        identity={"recipe": "r", "data": "d"},
    )


def test_an_optimizer_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """Tensors, numbers, tuples, None and integer keys survive safetensors and JSON."""
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    save_checkpoint(tmp_path, checkpoint(3, optimizer=saved))
    loaded = load_checkpoint(tmp_path / "step-3", {"recipe": "r", "data": "d"})

    assert loaded.progress == Progress(step=3, micro_rows=8, best_value=0.5, stale=1, tokens=7, seconds=1.5)
    assert loaded.optimizer["param_groups"] == saved["param_groups"]
    assert loaded.optimizer["state"].keys() == saved["state"].keys() == {0, 1}
    for key, entry in saved["state"].items():
        assert all(torch.equal(loaded.optimizer["state"][key][name], entry[name]) for name in entry)
    assert torch.equal(loaded.random[0]["cpu"], torch.get_rng_state())
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]


def test_the_newest_whole_checkpoint_counts_and_older_ones_go(tmp_path: Path) -> None:
    """A folder that a kill left half written has a hidden name and is not looked at."""
    model = small_model()
    save_best(tmp_path, 2, model)
    save_checkpoint(tmp_path, checkpoint(2, best_step=2))
    save_best(tmp_path, 10, model)
    (tmp_path / ".step-12.99.tmp").mkdir()
    (tmp_path / ".step-12.99.tmp" / "state.json").write_text("{}", encoding="utf-8")

    assert last_checkpoint(tmp_path) == tmp_path / "step-2"
    assert (tmp_path / "best-2").is_dir(), "the state after step 2 names it until a newer state is saved"
    save_checkpoint(tmp_path, checkpoint(10, best_step=10))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-10", "step-10"]
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_another_recipe_or_data_set_is_refused(tmp_path: Path) -> None:
    """The error says what changed, and both values."""
    save_checkpoint(tmp_path, checkpoint(3))
    with pytest.raises(RunError, match="cannot be continued, since data was d, is other"):
        load_checkpoint(tmp_path / "step-3", {"recipe": "r", "data": "other"})


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """Names that differ are an error, not a partly loaded model."""
    save_best(tmp_path, 1, small_model())
    with pytest.raises(RunError, match="does not fit this recipe's model"):
        load_weights(tmp_path / "best-1", torch.nn.Sequential(small_model()))
