"""What exports of a run cost in accuracy and save in time, against the run itself.

    python benchmarks/export_latency.py RUN EXPORT ... --out benchmarks/results/export_latency/NAME.json

Accuracy: run and exports on all test rows, each difference with a 95 % interval from resampling rows, both models'
together. Latency: one text at a time, without tokenising; the run is eager torch in fp32 with the adapter beside its
layers. Every text goes through all models in turn, in one process with one thread, so that whatever else the machine
does falls on all of them. Each repeat gives a median per model and its ratio to the run's; the record has the median of
the repeats' ratios.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from peftlab.data.tokens import Tokens, pad, tokenise
from peftlab.evaluation.agreement import rows_right
from peftlab.evaluation.forward import Forward, as_forward, logits_through
from peftlab.evaluation.intervals import wilson
from peftlab.evaluation.paired import mcnemar, paired_bootstrap
from peftlab.evaluation.run_model import load_run_model
from peftlab.recipe.plugins import load_plugin
from peftlab.runs.certificate import read_certificate
from peftlab.runs.environment import git_commit, processor_name, versions
from peftlab.runs.files import write_json
from peftlab.shipping.loading import load_forward

REPEATS, TEXTS, WARM_UP = 15, 40, 10


def main() -> int:
    """Compare the exports that are named with their run and write one record."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("run", metavar="RUN", type=Path)
    made.add_argument("exports", nargs="+", metavar="EXPORT", type=Path)
    made.add_argument("--out", required=True, type=Path)
    asked = made.parse_args()
    torch.set_num_threads(1)
    run = load_run_model(asked.run, torch.device("cpu"))
    if not hasattr(run.module, "peft_config"):
        raise SystemExit("the run has no adapter beside its layers")
    task = load_plugin("tasks", run.recipe.task.name)
    test = task.load_splits(run.recipe, run.recipe.task.config).test
    tokens = tokenise(run.tokenizer, test.texts, test.pairs, run.encoder.max_length)
    models: dict[str, Forward] = {"run": as_forward(run.module, torch.device("cpu"))}
    for folder in asked.exports:
        exported = read_certificate(folder).exported
        models[f"{exported.format}-{exported.dtype}"] = load_forward(folder, exported)
    right = {
        name: rows_right(logits_through(forward, tokens, 32), test.labels, multi_label=False, threshold=0.5)
        for name, forward in models.items()
    }
    times = interleaved(models, tokens)
    record: dict[str, Any] = {
        "recipe": run.recipe.name,
        "method": run.recipe.method.name,
        "test_rows": len(tokens),
        "texts": TEXTS,
        "repeats": REPEATS,
        "threads": torch.get_num_threads(),
        "processor": processor_name(),
        "mean_tokens": float(tokens.lengths[chosen(tokens)].mean()),
        "versions": versions(),
        "git_commit": git_commit(),
        "models": {name: compared(name, right, times) for name in models},
        "notes": {f"{path.name}": list(read_certificate(path).notes) for path in asked.exports},
    }
    write_json(asked.out, record)
    for name, found in record["models"].items():
        print(name, found)
    return 0


def compared(name: str, right: dict[str, NDArray[np.bool_]], times: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return accuracy and latency of a model, and how both stand to the run's."""
    medians = np.median(times[name], axis=1)
    ratios = medians / np.median(times["run"], axis=1)
    found: dict[str, Any] = {
        "accuracy": wilson(int(right[name].sum()), len(right[name])).to_dict(),
        "p50_ms": float(np.median(medians)) * 1e3,
        "p95_ms": float(np.percentile(times[name], 95)) * 1e3,
        "p50_of_run": float(np.median(ratios)),
        "p50_of_run_lowest_and_highest_repeat": [float(ratios.min()), float(ratios.max())],
    }
    if name != "run":
        pairs = mcnemar(right["run"], right[name])
        found["accuracy_minus_run"] = paired_bootstrap(
            right[name].astype(np.float64), right["run"].astype(np.float64)
        ).to_dict()
        found["right_in_one_only"] = {"run": pairs.only_first, "export": pairs.only_second, "mcnemar_p": pairs.exact}
    return found


def chosen(tokens: Tokens) -> NDArray[np.int64]:
    """Return the rows that are timed, spread over the whole split."""
    return np.linspace(0, len(tokens) - 1, TEXTS).astype(np.int64)


def interleaved(models: dict[str, Forward], tokens: Tokens) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of each call, [repeats, texts], of each model; the one that begins changes with each text."""
    inputs = [{name: tensor.numpy() for name, tensor in pad(tokens, [row]).items()} for row in chosen(tokens)]
    for forward in models.values():
        for one in inputs[:WARM_UP]:
            forward(one)
    taken = {name: np.zeros((REPEATS, TEXTS)) for name in models}
    names = list(models)
    for repeat in range(REPEATS):
        for place, one in enumerate(inputs):
            first = (repeat + place) % len(names)
            for name in names[first:] + names[:first]:
                start = time.perf_counter()
                models[name](one)
                taken[name][repeat, place] = time.perf_counter() - start
    return taken


if __name__ == "__main__":
    sys.exit(main())
