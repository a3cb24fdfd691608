"""How many tokens a forward pass on a CPU should have: a step of 32 texts of 128 tokens in passes of several sizes.

python benchmarks/speed/passes.py [--rounds 5] [--shapes minilm rbt3] [--threads 1] [--tokens 512 1024 2048 4096]
fp32, mean pooling; each arm in a process of its own, which take turns step by step after three warm-up steps each.
`time` and `peak` are ratios to the same method in one pass.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from shapes import METHODS, SHAPES, build, ratios, record
from turns import WARM_UP, serve, take_turns

from peftlab.recipe.records import Train
from peftlab.training.loop import fit

TEXTS, LENGTH = 32, 128
ARMS = ("lora q,v", "full")


def measured(shape: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row of figures for each method and size of a pass."""
    words = ["--threads", str(options.threads), "--arm", shape]
    names = {(arm, tokens): f"{arm} {tokens}" for arm in ARMS for tokens in options.tokens}
    turns = take_turns({name: [*words, arm, str(tokens)] for (arm, tokens), name in names.items()}, options.rounds)
    found = []
    for (arm, tokens), name in names.items():
        whole = names[arm, TEXTS * LENGTH]
        figures = ratios({one: turns.seconds[one] for one in (whole, name)}, whole)[name]
        peak, of_whole = turns.peak[name], turns.peak[whole]
        row = {"method": arm, "tokens": tokens, **figures, "peak": peak, "peak_ratio": round(peak / of_whole, 3)}
        found.append(row)
        print(
            f"{shape}, {arm}, passes of {tokens:,} tokens: {figures['wall_ratio']:.3f} of the time and "
            f"{row['peak_ratio']:.3f} of the peak of one pass ({peak / 1e6:,.0f} MB)",
            flush=True,
        )
    return found


def main() -> None:
    """Measure, print a line an arm, write a record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--shapes", nargs="+", default=list(SHAPES))
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--tokens", nargs="+", type=int, default=[512, 1024, 2048, TEXTS * LENGTH])
    asked.add_argument("--arm", nargs=3)
    options = asked.parse_args()
    torch.set_num_threads(options.threads)
    if options.arm is not None:
        shape, arm, tokens = options.arm
        method, settings = METHODS[arm]
        train = Train(epochs=10_000, batch_size=TEXTS, max_tokens=int(tokens))
        serve(fit(build(shape, method, settings, np.full(2 * TEXTS, LENGTH), train=train).fitting))
        return
    found = {shape: measured(shape, options) for shape in options.shapes}
    record("passes", {"batch": [TEXTS, LENGTH], "precision": "fp32", "warm_up": WARM_UP}, found)


if __name__ == "__main__":
    main()
