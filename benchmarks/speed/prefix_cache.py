"""LoRA in the top two of six layers with and without the frozen-prefix cache: an epoch, and 4 learning rates x 3 seeds.

python benchmarks/speed/prefix_cache.py [--rows 512] [--rounds 5] [--suite-rows 256] [--threads 1]
    [--pooling mean]
MiniLM's shape, random texts of 6 to 40 tokens, batch 32, fp32. `dropout`: the frozen layers as they are trained without
this option; `eval`: without dropout there; `cache`: the same, kept on disk, from the second epoch. The adapters of
`eval` and `cache` are compared bit by bit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from shapes import Built, Pooling, build, interleaved, ratios, record, table

from peftlab.encoders.prefix_store import PrefixStore
from peftlab.encoders.trainable import trained_parameters
from peftlab.recipe.records import Train
from peftlab.training import prefix
from peftlab.training.loop import Step, fit

SETTINGS = {"layers": (-1, -2)}
ABOUT = {"encoder": "random", "layers": 4}


def through(built: Built, mode: str, root: Path, stack: ExitStack) -> None:
    """Let the model of `built` run its frozen prefix as `mode` says until `stack` ends."""
    if mode == "dropout":
        return
    found = prefix._find(built.model, built.anatomy)
    if mode == "cache":
        found.store = PrefixStore(root, ABOUT, 10**12, print)
        stack.callback(found.store.write)
    stack.enter_context(prefix._through(built.model, found))


def same_encoder(built: Built) -> None:
    """Give the frozen weights the values that every seed shares: the encoder is one, the adapters differ."""
    other = build("minilm", "lora", SETTINGS, [8], train=Train()).model.state_dict()
    own = built.model.state_dict()
    with torch.no_grad():
        for name, value in own.items():
            if "lora_" not in name and "classifier" not in name:
                value.copy_(other[name])


def epochs(rows: int, rounds: int, pooling: Pooling, root: Path) -> dict[str, dict[str, float]]:
    """Time an epoch of each mode after a first one, in turn; AssertionError where eval and cache give other bits."""
    lengths = np.random.default_rng(1).integers(6, 41, rows)
    arms, models = {}, {}
    with ExitStack() as stack:
        for mode in ("dropout", "eval", "cache"):
            built = build("minilm", "lora", SETTINGS, lengths, train=Train(epochs=rounds + 1.0), pooling=pooling)
            through(built, mode, root, stack)
            torch.manual_seed(7)
            models[mode] = built.model
            arms[mode] = partial(
                one_epoch, fit(built.fitting), built.fitting.plan.steps_per_epoch, [torch.get_rng_state()]
            )
            arms[mode]()
        seconds = interleaved(arms, rounds)
    parts = [trained_parameters(models[mode]) for mode in ("eval", "cache")]
    if not all(torch.equal(value, parts[1][name]) for name, value in parts[0].items()):
        raise AssertionError("the adapters with and without the cache differ")
    return ratios(seconds, "eval")


def one_epoch(steps: Iterator[Step], count: int, generator: list[torch.Tensor]) -> None:
    """Train an epoch with random numbers of its own: the arms take turns, and each has its own masks."""
    torch.set_rng_state(generator[0])
    for _ in range(count):
        next(steps)
    generator[0] = torch.get_rng_state()


def suite(rows: int, pooling: Pooling, root: Path) -> dict[str, float]:
    """Return the wall seconds of training 4 rates x 3 seeds, two epochs each, with and without; the first fills it."""
    lengths = np.random.default_rng(2).integers(6, 41, rows)
    spent = {"eval": 0.0, "cache": 0.0}
    for rate in (2e-4, 5e-4, 1e-3, 2e-3):
        for seed in range(3):
            for mode in spent:
                train = Train(epochs=2, learning_rate=rate)
                built = build("minilm", "lora", SETTINGS, lengths, train=train, seed=seed, pooling=pooling)
                same_encoder(built)
                torch.manual_seed(seed)
                started = time.perf_counter()
                with ExitStack() as stack:
                    through(built, mode, root, stack)
                    for _ in fit(built.fitting):
                        pass
                spent[mode] += time.perf_counter() - started
    return {**{name: round(value, 2) for name, value in spent.items()}, "ratio": spent["cache"] / spent["eval"]}


def main() -> None:
    """Measure, print, write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--rows", type=int, default=512)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--suite-rows", type=int, default=256)
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--pooling", choices=["mean", "cls"], default="mean")
    options = asked.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        by_epoch = epochs(options.rows, options.rounds, options.pooling, Path(folder) / "epochs")
        print("\n".join(table(by_epoch, {"cache": 0.35})), flush=True)
        found: dict[str, object] = {"epoch": by_epoch, "bit_identical": True}
        if options.suite_rows:
            found["suite"] = suite(options.suite_rows, options.pooling, Path(folder) / "suite")
            print(f"4 learning rates x 3 seeds, wall seconds: {found['suite']}")
    settings = {"rows": options.rows, "suite_rows": options.suite_rows, "pooling": options.pooling, "limit": 0.35}
    record(f"prefix_cache_{options.pooling}", settings, found)


if __name__ == "__main__":
    main()
