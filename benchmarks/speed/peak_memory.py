"""Peak resident memory of a few training steps, each method in a process of its own, on the rbt3 shape.

python benchmarks/speed/peak_memory.py [--steps 4] [--threads 1] [--precision fp32] [--pooling mean]
Batch 32 x 128 tokens: weights, gradients, optimizer state and activations, and what Python and the libraries
take, which is also given by itself. `recomputed`: with `train.gradient_checkpointing`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from shapes import Pooling, build, record
from turns import alone

from peftlab.recipe.records import Train
from peftlab.runs.environment import peak_resident_bytes
from peftlab.training.loop import fit

Precision = Literal["fp32", "bf16"]
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "lora q,v": ("lora", {"target_modules": ("query", "value")}),
    "lora all-linear": ("lora", {}),
    "lora top layer": ("lora", {"layers": (-1,)}),
    "full, recomputed": ("full", {}),
    "lora all-linear, recomputed": ("lora", {}),
}


def one(arm: str, steps: int, precision: Precision, pooling: Pooling) -> None:
    """Train `steps` steps and print the peak in bytes, and what it was before anything was built."""
    before = peak_resident_bytes()
    method, settings = ARMS[arm]
    train = Train(epochs=100, batch_size=32)
    fitting = build("rbt3", method, settings, np.full(64, 128), train=train, pooling=pooling).fitting
    placement = replace(fitting.placement, precision=precision)
    fitting = replace(fitting, placement=placement, recompute=arm.endswith("recomputed"))
    for _, step in zip(range(steps), fit(fitting), strict=False):
        assert step.loss > 0
    print(json.dumps({"libraries": before, "peak": peak_resident_bytes()}))


def main() -> None:
    """Measure each arm, print a table, write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--steps", type=int, default=4)
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    asked.add_argument("--pooling", choices=["mean", "cls"], default="mean")
    asked.add_argument("--arm", choices=ARMS)
    options = asked.parse_args()
    torch.set_num_threads(options.threads)
    if options.arm is not None:
        one(options.arm, options.steps, options.precision, options.pooling)
        return
    found = {}
    for arm in ARMS:
        words = ["--arm", arm, "--steps", str(options.steps), "--threads", str(options.threads)]
        found[arm] = alone([*words, "--precision", options.precision, "--pooling", options.pooling])
        found[arm]["ratio"] = round(found[arm]["peak"] / found["full"]["peak"], 3)
        print(f"{arm}: {found[arm]['peak'] / 1e6:,.0f} MB, {found[arm]['ratio']:.3f} of full", flush=True)
    settings = {"shape": "rbt3", "batch": [32, 128], "steps": options.steps, "limit": 0.6}
    settings |= {"precision": options.precision, "pooling": options.pooling}
    beside = (
        "" if (options.precision, options.pooling) == ("fp32", "mean") else f"_{options.precision}_{options.pooling}"
    )
    record(f"peak_memory{beside}", settings, found)


if __name__ == "__main__":
    main()
