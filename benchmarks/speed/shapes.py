"""Random encoders of known shapes in peftlab's own loop, interleaved timing, and records: what the benchmarks share."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import BertConfig, BertModel

from peftlab.data.tokens import Tokens, labelled_batches
from peftlab.encoders.anatomy import Anatomy
from peftlab.encoders.pooled import PooledClassifier
from peftlab.recipe.plugins import load_plugin
from peftlab.recipe.records import Evaluation, Optimizer, Train
from peftlab.runs.environment import git_commit, processor_name, versions
from peftlab.runs.files import write_json
from peftlab.tasks import classification
from peftlab.training.loop import Fitting
from peftlab.training.optimizers import make_optimizer, parameter_groups
from peftlab.training.placement import Placement
from peftlab.training.plan import make_plan

Pooling = Literal["mean", "cls"]
RESULTS = Path(__file__).resolve().parents[1] / "results" / "speed"
SHAPES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536, "vocab_size": 30522},
    "rbt3": {"hidden_size": 768, "num_hidden_layers": 3, "intermediate_size": 3072, "vocab_size": 21128},
}
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072, "vocab_size": 21128}
"""The shape of BERT-base, too large for the benchmarks on a CPU."""
LABELS = 77
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "lora q,v": ("lora", {"target_modules": ("query", "value")}),
    "lora all-linear": ("lora", {}),
    "bottleneck": ("bottleneck", {}),
    "lora top layer": ("lora", {"layers": (-1,)}),
}
"""What is compared with full fine-tuning: a method and its settings."""


@dataclass(frozen=True)
class Built:
    """A model with a method attached, and what the loop needs to train it."""

    model: Any
    anatomy: Anatomy
    fitting: Fitting


def build(
    shape: str,
    method: str,
    settings: dict[str, Any],
    lengths: Any,
    *,
    train: Train,
    seed: int = 0,
    pooling: Pooling = "mean",
) -> Built:
    """Return a random encoder of `shape` with `method`, to be trained on random tokens of these `lengths` [rows]."""
    torch.manual_seed(seed)
    body = body_of(SHAPES[shape])
    tables = tuple(f"encoder.{name}" for name, module in body.named_modules() if isinstance(module, torch.nn.Embedding))
    anatomy = Anatomy("bert", "encoder", tables, ("classifier",), ("classifier",))
    model = attached(PooledClassifier(body, pooling, LABELS, 0.1), anatomy, method, settings)
    placement = Placement(0, 1, torch.device("cpu"), torch.get_num_threads(), "fp32")
    return Built(model, anatomy, fitting_of(model, anatomy, lengths, placement, train=train, seed=seed))


def body_of(shape: Mapping[str, int]) -> BertModel:
    """Return a random encoder without a pooler."""
    return BertModel(BertConfig(num_attention_heads=12, attn_implementation="sdpa", **shape), False)


def attached(model: Any, anatomy: Anatomy, method: str, settings: dict[str, Any]) -> Any:
    """Return `model` with `method` attached."""
    plugin: Any = load_plugin("methods", method)
    return plugin.attach(model, plugin.Config(**settings), anatomy)


def fitting_of(
    model: Any, anatomy: Anatomy, lengths: Any, placement: Placement, *, train: Train, seed: int = 0
) -> Fitting:
    """Return what the loop needs to train `model`, where it is placed, on random tokens of these `lengths` [rows]."""
    draw = np.random.default_rng(0)  # the same texts whatever the seed of the model
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = draw.integers(1000, 20000, int(starts[-1])).astype(np.int32)
    tokens = Tokens(ids, np.zeros(len(ids), np.int8), starts, 0, pad_left=False)
    labels = draw.integers(0, LABELS, len(lengths))
    rate = 1e-4 if train.learning_rate == "auto" else train.learning_rate
    return Fitting(
        model=model,
        lengths=tokens.lengths,
        batch=labelled_batches(tokens, torch.from_numpy(labels)),
        row_weights=np.ones(len(labels), np.float32),
        row_losses=lambda logits, targets: classification.row_losses(logits, targets, None, classification.Config()),
        optimizer=make_optimizer(parameter_groups(model, anatomy, Optimizer(), rate), Optimizer(), placement.device),
        plan=make_plan(train, Evaluation(), len(labels)),
        schedule="linear",
        clip=1.0,
        seed=seed,
        placement=placement,
        describe_rows=str,
        stop_asked=lambda: False,
    )


def interleaved(arms: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Run every arm once a round, `rounds` times, and return its wall and CPU seconds."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in arms}
    for _ in range(rounds):
        for name, run in arms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            seconds[name]["wall"].append(time.perf_counter() - wall)
            seconds[name]["cpu"].append(time.process_time() - cpu)
    return seconds


def ratios(seconds: dict[str, dict[str, list[float]]], base: str) -> dict[str, dict[str, float]]:
    """Return for each arm its median seconds, and its median ratio to `base` in the same round."""
    found = {}
    for name, of in seconds.items():
        row: dict[str, float] = {"rounds": len(of["wall"])}
        for clock in ("wall", "cpu"):
            row[f"{clock}_seconds"] = round(statistics.median(of[clock]), 4)
            pairs = zip(of[clock], seconds[base][clock], strict=True)
            row[f"{clock}_ratio"] = round(statistics.median(own / other for own, other in pairs), 3)
        found[name] = row
    return found


def record(name: str, settings: dict[str, Any], results: Any) -> None:
    """Write the record `name` and say where it is."""
    where = {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "git_commit": git_commit(),
        "command": " ".join(sys.argv),
        "time": time.strftime("%Y-%m-%d %H:%M"),
    }
    path = RESULTS / f"{name}.json"
    write_json(path, {"benchmark": name, "settings": settings, "where": where, "results": results})
    print(f"record: {path}")


def table(rows: dict[str, dict[str, Any]], limits: dict[str, float]) -> Iterator[str]:
    """Yield the lines of a Markdown table of `ratios`, with what each arm must not exceed."""
    yield "| arm | wall s | wall ratio | CPU s | CPU ratio | rounds | at most |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, row in rows.items():
        limit = limits.get(name)
        yield (
            f"| {name} | {row['wall_seconds']:.3f} | {row['wall_ratio']:.3f} | {row['cpu_seconds']:.3f} | "
            f"{row['cpu_ratio']:.3f} | {row['rounds']} | {'' if limit is None else limit} |"
        )
