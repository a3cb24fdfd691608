"""What a step of every method costs at its defaults: time and peak memory, as ratios to full fine-tuning.

python benchmarks/speed/method_costs.py [--rounds 5] [--shape minilm] [--threads 1] [--beside 7] [--methods NAME ...]
Batch 32 x 32 tokens, fp32, every dropout 0.1, in peftlab's own loop with what the method does beside the gradient.
Each arm is a process of its own; `--beside` of them and full fine-tuning take turns step by step after three warm-up
steps each, one group after another, and a ratio is that of two steps of the same round. Peak memory is the peak
resident memory of the arm's process, libraries included. What trains without a gradient (probe, tfidf) has no step.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shapes import SHAPES, build, ratios, record
from turns import WARM_UP, serve, take_turns

from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.recipe.records import Train
from peftlab.training.loop import fit
from peftlab.training.prepare import method_hooks

BASE = "full"


def stepping_methods() -> list[str]:
    """Return the methods that are trained by gradient, full fine-tuning left out."""
    return [name for name in plugin_names("methods") if name != BASE and load_plugin("methods", name).LEARNING_RATE]


def steps_of(shape: str, method: str, rounds: int) -> Iterator[object]:
    """Return the steps of a training three times as long as what is measured of it or longer, so that no phase ends."""
    train = Train(epochs=max(30, 3 * (WARM_UP + rounds) // 2), batch_size=32)
    built = build(shape, method, {}, np.full(64, 32), train=train)
    plugin = load_plugin("methods", method)
    hooks = method_hooks(plugin, built.model, plugin.Config(), built.fitting.plan.total_steps, Path(__file__))
    return fit(replace(built.fitting, hooks=hooks))


def measured(methods: list[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the figures of each method, and of full fine-tuning beside each group of them."""
    words = ["--rounds", str(options.rounds), "--threads", str(options.threads), "--arm", options.shape]
    found: dict[str, dict[str, Any]] = {}
    for first in range(0, len(methods), options.beside):
        group = [BASE, *methods[first : first + options.beside]]
        turns = take_turns({method: [*words, method] for method in group}, options.rounds)
        for method, row in ratios(turns.seconds, BASE).items():
            peak = turns.peak[method]
            full = {"peak_mb": round(peak / 1e6), "peak_ratio": round(peak / turns.peak[BASE], 3)}
            if method != BASE or method not in found:
                found[method] = row | full
            print(
                f"{method}: step {row['wall_ratio']:.2f} of full, peak {full['peak_ratio']:.2f} ({full['peak_mb']} MB)",
                flush=True,
            )
    return found


def main() -> None:
    """Measure every method and write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--shape", choices=SHAPES, default="minilm")
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--beside", type=int, default=7)
    asked.add_argument("--methods", nargs="+")
    asked.add_argument("--arm", nargs=2)
    options = asked.parse_args()
    torch.set_num_threads(options.threads)
    if options.arm is not None:
        shape, method = options.arm
        serve(steps_of(shape, method, options.rounds))
        return
    found = measured(options.methods or stepping_methods(), options)
    settings = {"shape": options.shape, "batch": [32, 32], "precision": "fp32", "pooling": "mean", "warm_up": WARM_UP}
    record(f"method_costs_{options.shape}", settings, found)


if __name__ == "__main__":
    main()
