"""How time and memory of a step grow with length of texts, rank and layers.

python benchmarks/speed/growth.py [--rounds 5] [--threads 1]
LoRA on all linear layers of MiniLM's shape, batch 32, fp32, 32 tokens, r 8 and 6 layers where these do not
grow; seconds are medians of rounds in which every size takes its turn, the peak is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import numpy as np
import shapes
import torch
from shapes import build, interleaved, ratios, record
from turns import alone

from peftlab.recipe.records import Train
from peftlab.runs.environment import peak_resident_bytes
from peftlab.training.loop import fit

SWEEPS: dict[str, tuple[int, ...]] = {
    "tokens": (16, 32, 64, 128, 256),
    "rank": (1, 4, 16, 64),
    "layers": (2, 4, 6, 12),
}
USUAL = {"tokens": 32, "rank": 8, "layers": 6}


def steps_of(sweep: str, size: int) -> Any:
    """Return the steps of a LoRA training in which `sweep` has this size."""
    at = USUAL | {sweep: size}
    shapes.SHAPES["grown"] = shapes.SHAPES["minilm"] | {"num_hidden_layers": at["layers"]}
    train = Train(epochs=10_000, batch_size=32)
    return fit(build("grown", "lora", {"r": at["rank"]}, np.full(64, at["tokens"]), train=train).fitting)


def sweep_of(sweep: str, rounds: int, threads: int) -> dict[str, Any]:
    """Return seconds a step, their ratio to the smallest size, and the peak of a process, for each size."""
    steps = {str(size): steps_of(sweep, size) for size in SWEEPS[sweep]}
    for one in steps.values():
        next(one)
    found: dict[str, Any] = ratios(
        interleaved({size: partial(next, one) for size, one in steps.items()}, rounds), str(SWEEPS[sweep][0])
    )
    for size, row in found.items():
        row["peak_mb"] = round(alone(["--threads", str(threads), "--one", sweep, size])["peak"] / 1e6)
    return found


def one_step(sweep: str, size: str) -> None:
    """Take three steps of one size."""
    steps = steps_of(sweep, int(size))
    for _ in range(3):
        next(steps)


def main() -> None:
    """Measure, print, write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--one", nargs=2)
    options = asked.parse_args()
    torch.set_num_threads(options.threads)
    if options.one is not None:
        one_step(*options.one)
        print(json.dumps({"peak": peak_resident_bytes()}))
        return
    found: dict[str, Any] = {}
    for sweep in SWEEPS:
        found[sweep] = sweep_of(sweep, options.rounds, options.threads)
        for size, row in found[sweep].items():
            print(f"{sweep} {size}: {row}", flush=True)
    record("growth", {"batch": 32, "usual": USUAL, "precision": "fp32"}, found)


if __name__ == "__main__":
    main()
