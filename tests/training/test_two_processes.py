"""Two processes over gloo train what one does, into one folder, and score each test row once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab import train
from peftlab.runs.result import read_result


def launch(options: list[str], arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `accelerate launch OPTIONS -m peftlab.train ARGUMENTS`."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "peftlab.train", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment}
    )


def without_dropout(encoder: Path, folder: Path) -> Path:
    """Copy `encoder` to `folder` without dropout, whose draws differ between processes; return the copy."""
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_two_processes_give_the_metric_of_one(
    tiny_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Same seed and global batch: the same losses, the same test metrics to 1e-3, every test row exactly once."""
    recipe = str(tiny_recipe("lora", sections="[head]\ndropout = 0.0"))
    encoder = without_dropout(tiny_encoder(), tmp_path / "encoder")
    settings = [f"encoder.name={encoder}", "method.dropout=0", "train.learning_rate=0.005", "train.batch_size=7"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert train.main([recipe, *settings, f"run.dir={one}"]) == 0
    both = launch(
        ["--multi_gpu", "--num_processes", "2"],
        [recipe, *settings, f"run.dir={two}"],
        {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )

    assert both.returncode == 0, both.stderr
    assert both.stdout.splitlines()[-1] == str(two), "one process speaks"
    assert both.stdout.count(str(two)) == 1
    results = [read_result(one), read_result(two)]
    assert results[1].device is not None
    assert results[1].device.processes == 2
    assert results[0].metrics.test.keys() == results[1].metrics.test.keys()
    for name, estimate in results[0].metrics.test.items():
        assert estimate.value == pytest.approx(results[1].metrics.test[name].value, abs=1e-3), name
    rows = [
        [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
        for run in (one, two)
    ]
    assert [row["id"] for row in rows[1]] == [row["id"] for row in rows[0]]
    assert len({row["id"] for row in rows[1]}) == len(rows[1]) == 24
    losses = [
        [json.loads(line).get("loss") for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for run in (one, two)
    ]
    assert [loss for loss in losses[1] if loss] == pytest.approx([loss for loss in losses[0] if loss], abs=1e-5)


@pytest.mark.slow
def test_two_processes_allocate_the_ranks_of_one(
    tiny_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Importance is taken from the gradients of all rows: AdaLoRA ends with the same rank in every module."""
    encoder = without_dropout(tiny_encoder(), tmp_path / "encoder")
    recipe = str(tiny_recipe("adalora", sections="[head]\ndropout = 0.0"))
    settings = [recipe, f"encoder.name={encoder}", "method.dropout=0", "method.delta_t=2", "train.batch_size=7"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert train.main([*settings, f"run.dir={one}"]) == 0
    both = launch(
        ["--multi_gpu", "--num_processes", "2"],
        [*settings, f"run.dir={two}"],
        {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )

    assert both.returncode == 0, both.stderr
    alone, together = read_result(one), read_result(two)
    assert together.device is not None
    assert together.device.processes == 2
    assert alone.ranks is not None
    assert len(set(alone.ranks.values())) > 1
    assert together.ranks == alone.ranks


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--cpu", "--num_processes", "2"], ["--multi_gpu", "--num_processes", "2"]])
def test_launch_lines_that_only_look_right_are_refused(
    options: list[str], tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """One process where two were asked for, or two that do not know of each other: a sentence, and no run folder."""
    run = tmp_path / "run"
    done = launch(options, [str(tiny_recipe("lora")), f"run.dir={run}"], {"OMP_NUM_THREADS": "1"})

    assert done.returncode != 0
    assert "the launch line asks for 2 processes" in done.stderr
    assert "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2" in done.stderr
    assert not run.exists()
