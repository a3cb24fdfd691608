"""Peak resident memory of a few training steps, each method in a process of its own, on the rbt3 shape.

python benchmarks/speed/peak_memory.py [--steps 3] [--threads 1] [--precision fp32] [--pooling mean]
Batch 32 x 128 tokens: weights, gradients, optimizer state and activations, and what Python and the libraries
take, which is also given by itself. Four times: in the forward passes that peftlab chooses by itself; in passes of
1,024 tokens; with the whole batch in one; and by itself again where bitsandbytes is installed, an extra that peft
imports wherever it finds it, and which is hidden from the others. `recomputed`: with `train.gradient_checkpointing`.
"""

from __future__ import annotations

import argparse
import json
import sys
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
Tokens = int | Literal["auto"]
TEXTS, LENGTH = 32, 128
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "lora q,v": ("lora", {"target_modules": ("query", "value")}),
    "lora all-linear": ("lora", {}),
    "lora top layer": ("lora", {"layers": (-1,)}),
    "full, recomputed": ("full", {}),
    "lora all-linear, recomputed": ("lora", {}),
}
WAYS: dict[str, Tokens] = {
    "by itself": "auto",
    "passes of 1,024 tokens": 1024,
    "one pass": TEXTS * LENGTH,
    "with bitsandbytes": "auto",
}


def one(arm: str, way: str, options: argparse.Namespace) -> None:
    """Train some steps and print the peak in bytes, and what it was before anything was built."""
    if way != "with bitsandbytes":
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment] # not to be found
    before = peak_resident_bytes()
    method, settings = ARMS[arm]
    train = Train(epochs=100, batch_size=TEXTS, max_tokens=WAYS[way])
    lengths = np.full(2 * TEXTS, LENGTH)
    pooling: Pooling = options.pooling
    fitting = build("rbt3", method, settings, lengths, train=train, pooling=pooling).fitting
    placement = replace(fitting.placement, precision=options.precision)
    fitting = replace(fitting, placement=placement, recompute=arm.endswith("recomputed"))
    for _, step in zip(range(options.steps), fit(fitting), strict=False):
        assert step.loss > 0
    print(json.dumps({"libraries": before, "peak": peak_resident_bytes()}))


def main() -> None:
    """Measure each arm, print a table, write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--steps", type=int, default=3)
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    asked.add_argument("--pooling", choices=["mean", "cls"], default="mean")
    asked.add_argument("--arm", nargs=2)
    options = asked.parse_args()
    torch.set_num_threads(options.threads)
    if options.arm is not None:
        one(*options.arm, options)
        return
    found: dict[str, dict[str, Any]] = {way: {} for way in WAYS}
    same = ["--steps", str(options.steps), "--threads", str(options.threads)]
    same += ["--precision", options.precision, "--pooling", options.pooling]
    for arm in ARMS:
        for way, rows in found.items():
            row = rows[arm] = alone(["--arm", arm, way, *same])
            row["ratio"] = round(row["peak"] / rows["full"]["peak"], 3)
            print(f"{arm}, {way}: {row['peak'] / 1e6:,.0f} MB, {row['ratio']:.3f} of full", flush=True)
    settings = {"shape": "rbt3", "batch": [TEXTS, LENGTH], "steps": options.steps, "limit": 0.6}
    settings |= {"precision": options.precision, "pooling": options.pooling}
    beside = (
        "" if (options.precision, options.pooling) == ("fp32", "mean") else f"_{options.precision}_{options.pooling}"
    )
    record(f"peak_memory{beside}", settings, found)


if __name__ == "__main__":
    main()
