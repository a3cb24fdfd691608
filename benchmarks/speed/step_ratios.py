"""One optimizer step of parameter-efficient methods against that of full fine-tuning, both in peftlab's own loop.

python benchmarks/speed/step_ratios.py [--rounds 7] [--shapes minilm rbt3] [--threads 1] [--pooling mean]
Batch 32 x 32 tokens, fp32, every dropout 0.1 (bottleneck adapters have none of their own); one warm-up step each.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from shapes import SHAPES, build, interleaved, ratios, record, table

from peftlab.recipe.records import Train
from peftlab.training.loop import fit

ARMS = {
    "full": ("full", {}),
    "lora q,v": ("lora", {"target_modules": ("query", "value")}),
    "lora all-linear": ("lora", {}),
    "bottleneck": ("bottleneck", {}),
    "lora top layer": ("lora", {"layers": (-1,)}),
    "head": ("head", {}),
}
LIMITS = {"lora q,v": 0.68, "lora all-linear": 0.75, "bottleneck": 0.70, "lora top layer": 0.40}


def main() -> None:
    """Measure, print a table for each shape, write a record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--shapes", nargs="+", default=list(SHAPES))
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--pooling", choices=["mean", "cls"], default="mean")
    options = asked.parse_args()
    torch.set_num_threads(options.threads)
    for shape in options.shapes:
        train = Train(epochs=10_000, batch_size=32)
        steps = {
            name: fit(build(shape, method, settings, np.full(64, 32), train=train, pooling=options.pooling).fitting)
            for name, (method, settings) in ARMS.items()
        }
        for step in steps.values():
            next(step)
        seconds = interleaved({name: partial(next, step) for name, step in steps.items()}, options.rounds)
        result = ratios(seconds, "full")
        print(f"\n{shape}, batch 32 x 32 tokens, {options.pooling} pooling, {options.threads} thread(s)\n")
        print("\n".join(table(result, LIMITS)), flush=True)
        settings = {
            "shape": shape,
            "batch": [32, 32],
            "precision": "fp32",
            "pooling": options.pooling,
            "limits": LIMITS,
        }
        record(f"step_ratios_{shape}" + ("_cls" if options.pooling == "cls" else ""), settings, result)


if __name__ == "__main__":
    main()
