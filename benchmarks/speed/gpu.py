"""Methods on a GPU: time of a step against full fine-tuning's, share of the matmul peak, peak memory; int8 and nf4 too.

python benchmarks/speed/gpu.py [--rounds 5] [--steps 5] [--shapes minilm rbt3 base] [--batches 32x32 32x128 256x128]
Random encoders in peftlab's own loop, bf16 arithmetic, fp32 weights unless the arm says otherwise, every dropout 0.1
(bottleneck adapters have none of their own). All arms of a shape lie on the GPU and take turns, `steps` steps at a
time, after warm-up; the peak of each is that of its tensors alone, measured before, with no other arm there.
Operations are those that torch counts in a step (matrix products and attention, both passes); it does not see 8-bit
and 4-bit products, so that their share of the peak is not given.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shapes import BASE, LABELS, METHODS, SHAPES, attached, body_of, fitting_of, interleaved, ratios, record
from torch.utils.flop_counter import FlopCounterMode

from peftlab.encoders.load import HeadShape, load_classifier
from peftlab.programs import quiet_libraries
from peftlab.recipe.records import Encoder, Train
from peftlab.training.loop import Step, fit
from peftlab.training.placement import Placement

ALL_SHAPES = SHAPES | {"base": BASE}
ARMS = {name: (*arm, "full") for name, arm in METHODS.items()} | {
    f"lora all-linear, {kind}": (*METHODS["lora all-linear"], kind) for kind in ("int8", "nf4")
}
"""A method, its settings, and how the frozen weights are loaded."""
WARM_UP = 4


def steps_of(arm: str, folder: Path, rows: int, tokens: int, device: torch.device) -> Iterator[Step]:
    """Return the steps of one arm on `rows` x `tokens` a batch."""
    method, settings, load_in = ARMS[arm]
    encoder = Encoder.model_validate({"name": str(folder), "pooling": "mean", "load_in": load_in})
    loaded = load_classifier(encoder, folder, HeadShape(LABELS, 0.1), device=device)
    model = attached(loaded.model, loaded.anatomy, method, settings).to(device)
    placement = Placement(0, 1, device, torch.get_num_threads(), "bf16")
    train = Train(epochs=10_000, batch_size=rows)
    return fit(fitting_of(model, loaded.anatomy, np.full(2 * rows, tokens), placement, train=train))


def alone(arm: str, folder: Path, rows: int, tokens: int, device: torch.device) -> dict[str, float]:
    """Return peak bytes of an arm by itself, and the operations of one of its steps."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    steps = steps_of(arm, folder, rows, tokens, device)
    for _ in range(2):
        next(steps)
    peak = torch.cuda.max_memory_allocated(device) - before
    with FlopCounterMode(display=False) as counter:
        next(steps)
    return {"peak_mb": round(peak / 1e6), "gflop": round(counter.get_total_flops() / 1e9, 2)}


def matmul_peak(device: torch.device, size: int = 8192, repeats: int = 20) -> float:
    """Return the operations a second of a large bf16 product of random matrices, median of `repeats`."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(repeats + 3):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        left @ right
        torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds[3:])


def measured(folder: Path, rows: int, tokens: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the figures of every arm for one shape and batch."""
    device = torch.device("cuda")
    lonely = {arm: alone(arm, folder, rows, tokens, device) for arm in ARMS}
    arms = {arm: steps_of(arm, folder, rows, tokens, device) for arm in ARMS}

    def turn(steps: Iterator[Step], number: int) -> None:
        for _ in range(number):
            next(steps)  # reads the loss back, so that it ends when the step has ended
        torch.cuda.synchronize(device)

    for steps in arms.values():
        turn(steps, WARM_UP)
    seconds = interleaved({arm: lambda s=steps: turn(s, options.steps) for arm, steps in arms.items()}, options.rounds)
    found = ratios(seconds, "full")
    for arm, row in found.items():
        step = row["wall_seconds"] / options.steps
        row.update(lonely[arm], step_ms=round(1e3 * step, 2), tokens_a_second=round(rows * tokens / step))
        row["memory_ratio"] = round(row["peak_mb"] / lonely["full"]["peak_mb"], 3)
        if ARMS[arm][2] == "full":
            row["share_of_matmul_peak"] = round(1e9 * row["gflop"] / step / options.peak, 4)
    return found


def main() -> None:
    """Measure every shape and batch, print a line an arm, write the record after each."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--steps", type=int, default=5)
    asked.add_argument("--shapes", nargs="+", default=list(ALL_SHAPES), choices=list(ALL_SHAPES))
    asked.add_argument("--batches", nargs="+", default=["32x32", "32x128", "256x128"])
    options = asked.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/speed/gpu.py needs a CUDA device, and torch finds none")
    quiet_libraries()
    options.peak = matmul_peak(torch.device("cuda"))
    print(f"bf16 matmul: {options.peak / 1e12:.0f} TFLOP/s", flush=True)
    found: dict[str, Any] = {}
    settings = {"precision": "bf16", "matmul_tflops": round(options.peak / 1e12, 1), "steps_a_round": options.steps}
    settings |= {"device": torch.cuda.get_device_name(), "warm_up": WARM_UP}
    with tempfile.TemporaryDirectory() as place:
        for shape in options.shapes:
            torch.manual_seed(0)
            folder = Path(place) / shape
            body_of(ALL_SHAPES[shape]).save_pretrained(folder)
            found[shape] = {}
            for batch in options.batches:
                rows, tokens = (int(number) for number in batch.split("x"))
                found[shape][batch] = measured(folder, rows, tokens, options)
                for arm, row in found[shape][batch].items():
                    print(shape, batch, arm, row, flush=True)
                record("gpu", settings, found)


if __name__ == "__main__":
    main()
