"""One optimizer step of parameter-efficient methods against that of full fine-tuning, both in peftlab's own loop.

python benchmarks/speed/step_ratios.py [--rounds 7] [--shapes minilm rbt3] [--threads 1] [--pooling mean]
Batch 32 x 32 tokens, fp32, every dropout 0.1 (bottleneck adapters have none of their own); each arm in a process of
its own, which take turns step by step after three warm-up steps each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import ExitStack

import numpy as np
import torch
from shapes import METHODS, SHAPES, Pooling, build, ratios, record, table

from peftlab.recipe.records import Train
from peftlab.training.loop import fit

ARMS = METHODS | {"head": ("head", {})}
WARM_UP = 3
LIMITS = {"lora q,v": 0.68, "lora all-linear": 0.75, "bottleneck": 0.70, "lora top layer": 0.40}


def serve(shape: str, arm: str, pooling: Pooling) -> None:
    """Take a step of one arm for every line of standard input, and print its wall and CPU seconds."""
    method, settings = ARMS[arm]
    built = build(shape, method, settings, np.full(64, 32), train=Train(epochs=10_000, batch_size=32), pooling=pooling)
    steps = fit(built.fitting)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        next(steps)
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


def step(child: subprocess.Popen[str]) -> list[float]:
    """Let one arm take a step while the others wait; return its wall and CPU seconds."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("step\n")
    child.stdin.flush()
    seconds: list[float] = json.loads(child.stdout.readline())
    return seconds


def measured(shape: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the figures of each arm: processes of their own take turns, so that none has another's memory."""
    line = [sys.executable, __file__, "--threads", str(options.threads), "--pooling", options.pooling]
    with ExitStack() as stack:
        children = {
            arm: stack.enter_context(
                subprocess.Popen(
                    [*line, "--arm", shape, arm],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
            for arm in ARMS
        }
        for child in children.values():
            for _ in range(WARM_UP):
                step(child)
        seconds: dict[str, dict[str, list[float]]] = {arm: {"wall": [], "cpu": []} for arm in ARMS}
        for _ in range(options.rounds):
            for arm, child in children.items():
                for clock, spent in zip(("wall", "cpu"), step(child), strict=True):
                    seconds[arm][clock].append(spent)
    return ratios(seconds, "full")


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
        serve(*options.arm, options.pooling)
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
