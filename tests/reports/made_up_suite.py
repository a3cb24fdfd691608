"""A made-up suite on disk: four recipes, three seeds, with predictions, a failure, and a run that is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from peftlab.evaluation.compact_predictions import SUFFIX, CompactPredictions, write_compact
from peftlab.runs.result import Result, write_result
from peftlab.runs.result_parts import Estimate, Metrics, Parameters, RecipeUsed, Seconds

LABELS = ("delivery", "refund", "other")
ROWS = 1500
# Recipe: true accuracy, trained parameters, seconds.
ARMS = {
    "tfidf": (0.80, 500_000, 4.0),
    "head": (0.90, 1_155, 60.0),
    "lora": (0.95, 74_883, 150.0),
    "full": (0.95, 38_478_339, 400.0),
}
SUITE = """
name = "made_up"
title = "Made-up suite <&> tickets"
methods = ["tfidf", "head", "lora", "full"]
seeds = [0, 1, 2]
target = 0.93
margin = 0.02
reference = "full"
"""


def write_suite(folder: Path, make_result: Callable[..., Result], suite: str = SUITE) -> Path:
    """Write the suite's records into `folder` and return it; `lora` failed with seed 2, `tfidf` lacks seed 2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "suite.toml").write_text(suite, encoding="utf-8")
    finished = make_result(target=None)
    hardness, gold = np.random.default_rng(0).random(ROWS), np.arange(ROWS) % 3
    for place, (arm, (accuracy, trainable, seconds)) in enumerate(ARMS.items()):
        for seed in range(3):
            name = f"{arm}-s{seed}"
            if (arm, seed) == ("tfidf", 2):
                continue
            if (arm, seed) == ("lora", 2):
                write_record(
                    folder, name, finished.model_copy(update={"status": "failed", "reason": "loss is NaN at step 7"})
                )
                continue
            noise = np.random.default_rng(10 * place + seed).normal(scale=0.02, size=ROWS)
            right = hardness + noise < accuracy
            guess = np.where(right, gold, (gold + 1) % 3)
            share = float(right.mean())
            fields = {
                "recipe": RecipeUsed(name=arm, hash="ab" * 32),
                "method": arm,
                "metrics": Metrics(
                    test={"accuracy": Estimate(value=share, low=share - 0.02, high=share + 0.02, n=ROWS)}
                ),
                "parameters": Parameters(
                    trainable=trainable, total=38_478_339, embedding=16_000_000, shipped_bytes=4 * trainable
                ),
                "seconds": Seconds(train=seconds, test=1.0, total=seconds + 5 + seed, cpu=2 * seconds),
                "seeds": {"train": seed},
            }
            result = finished.model_copy(update=fields)
            write_record(folder, name, result)
            confidence = tuple(float(x) for x in np.round(np.clip(1 - hardness / 2, 0, 1), 4))
            compact = CompactPredictions(LABELS, tuple(gold.tolist()), tuple(guess.tolist()), confidence)
            write_compact(folder / f"{name}{SUFFIX}", compact)
    return folder


def write_record(folder: Path, name: str, result: Result) -> None:
    """Write one record under the run's name."""
    write_result(folder, result).rename(folder / f"{name}.json")
