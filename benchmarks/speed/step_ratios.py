"""One optimizer step of parameter-efficient methods against that of full fine-tuning, both in peftlab's own loop.

python benchmarks/speed/step_ratios.py [--rounds 7] [--shapes minilm rbt3] [--threads 1] [--pooling mean]
Batch 32 x 32 tokens, fp32, every dropout 0.1 (bottleneck adapters have none of their own); each arm in a process of
its own, which take turns step by step after three warm-up steps each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from shapes import METHODS, SHAPES, Pooling, build, ratios, record, table
from turns import WARM_UP, serve, take_turns

from peftlab.recipe.records import Train
from peftlab.training.loop import fit

ARMS = METHODS | {"head": ("head", {})}
LIMITS = {"lora q,v": 0.68, "lora all-linear": 0.75, "bottleneck": 0.70, "lora top layer": 0.40}


def steps_of(shape: str, arm: str, pooling: Pooling) -> Iterator[object]:
    """Return the steps of one arm's training."""
    method, settings = ARMS[arm]
    train = Train(epochs=10_000, batch_size=32)
    return fit(build(shape, method, settings, np.full(64, 32), train=train, pooling=pooling).fitting)


def measured(shape: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the figures of each arm."""
    words = ["--threads", str(options.threads), "--pooling", options.pooling]
    turns = take_turns({arm: [*words, "--arm", shape, arm] for arm in ARMS}, options.rounds)
    return ratios(turns.seconds, "full")


def main() -> None:
    """Measure, print a table for each shape, write a record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--shapes", nargs="+", default=list(SHAPES))
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--pooling", choices=["mean", "cls"], default="mean")
    asked.add_argument("--arm", nargs=2)
    options = asked.parse_args()
    torch.set_num_threads(options.threads)
    if options.arm is not None:
        shape, arm = options.arm
        serve(steps_of(shape, arm, options.pooling))
        return
    for shape in options.shapes:
        result = measured(shape, options)
        print(f"\n{shape}, batch 32 x 32 tokens, {options.pooling} pooling, {options.threads} thread(s)\n")
        print("\n".join(table(result, LIMITS)), flush=True)
        settings = {"shape": shape, "batch": [32, 32], "precision": "fp32", "pooling": options.pooling}
        beside = "_cls" if options.pooling == "cls" else ""
        record(f"step_ratios_{shape}{beside}", settings | {"limits": LIMITS, "warm_up": WARM_UP}, result)


if __name__ == "__main__":
    main()
