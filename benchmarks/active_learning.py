"""How many labels does each strategy need for the accuracy that random sampling reaches with 4,000? One record.

    PEFTLAB_DATA=... python benchmarks/active_learning.py --seeds 0 1 2

Banking77's training rows are the pool, their labels are looked up when a strategy asks for them, and a probe on
MiniLM's frozen embeddings (computed once) is trained after every round. Which strategy is recommended is chosen by the
1,002 validation rows; the labels that it needs are then read off the 3,080 test rows, on which nothing is chosen. The
penalty of the probe is one for all, chosen on validation with the labels of the start.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.over_seeds import accuracy_interval
from peftlab.labelling.curve import gain_of_more, measure_curve
from peftlab.labelling.desk import STRENGTHS
from peftlab.labelling.simulate import Embedded, Plan, labels_needed, probabilities_of, simulate
from peftlab.labelling.strategies import ABOUT, STRATEGIES, Strategy
from peftlab.recipe.load import read_recipe
from peftlab.recipe.resolve import resolved
from peftlab.runs.environment import git_commit, processor_name, versions
from peftlab.runs.files import write_json
from peftlab.runs.folder import now
from peftlab.training.curate import bench_of
from peftlab.training.prepare import find_inputs

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "active_learning" / "banking77.json"
RESAMPLES = 400
SPLITS = ("validation", "test")


def main() -> int:
    """Run the simulation and write its record; returns the exit code."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    asked.add_argument("--start", type=int, default=400)
    asked.add_argument("--step", type=int, default=600)
    asked.add_argument("--most", type=int, default=4000)
    asked.add_argument("--keep", type=Path, help="folder that keeps embeddings and finished runs for another call")
    words = asked.parse_args()
    record = measure(words.seeds, words.start, words.step, words.most, words.keep)
    write_json(RECORD, record)
    for name, one in record["strategies"].items():
        print(f"{name:<17} {one['test']}")
    print(f"chosen on validation: {record['chosen']}; {record['reached']}")
    return 0


def measure(seeds: list[int], start: int, step: int, most: int, keep: Path | None) -> dict[str, Any]:
    """Return the record: for each strategy its curves and the labels that it needs, on validation and on test."""
    import torch

    from peftlab.labelling.cache import kept_on_disk

    torch.set_num_threads(1)
    recipe = resolved(read_recipe(ROOT / "recipes" / "probe_minilm_banking77.toml", ["data.train_on_validation=false"]))
    found = find_inputs(recipe, report_path=None, say=lambda sentence: print(sentence, file=sys.stderr))
    embed = bench_of(found, torch.device("cpu")).embed
    if embed is None or found.files is None:
        raise AssertionError("the recipe has an encoder")
    with tempfile.TemporaryDirectory() as folder:
        kept = kept_on_disk(embed, keep or Path(folder), [found.files.sha256])
        splits = found.splits
        pool, validation, test = (
            Embedded(kept(one.texts, one.pairs), one.labels) for one in (splits.train, splits.validation, splits.test)
        )
    classes = len(splits.label_names)
    first = np.random.default_rng(seeds[0]).permutation(len(pool.labels))[:start]
    known = Embedded(pool.features[first], pool.labels[first])
    scores = {c: _accuracy(known, validation, classes, c) for c in STRENGTHS}
    plan = Plan(start, step, most, max(STRENGTHS, key=lambda c: (scores[c], -c)))
    right: dict[str, dict[str, NDArray[np.bool_]]] = {}
    seconds = {}
    for strategy in STRATEGIES:
        began = time.perf_counter()
        runs = [_run(strategy, pool, (validation, test), plan, classes=classes, seed=seed, keep=keep) for seed in seeds]
        seconds[strategy] = round(time.perf_counter() - began, 1)
        right[strategy] = {name: np.stack([run[place] for run in runs]) for place, name in enumerate(SPLITS)}
    strategies = {
        strategy: {
            "about": ABOUT[strategy],
            "seconds": seconds[strategy],
            **{name: _needed(right, strategy, name, plan) for name in SPLITS},
        }
        for strategy in STRATEGIES
    }
    others = [name for name in STRATEGIES if name != "random"]
    chosen = min(others, key=lambda name: strategies[name]["validation"]["ratio"] or np.inf)
    ratio = strategies[chosen]["test"]["ratio"]
    return {
        "set": "banking77",
        "encoder": recipe.encoder.name if recipe.encoder is not None else None,
        "method": "probe",
        "plan": {"start": start, "step": step, "most": plan.sizes[-1], "c": plan.c},
        "seeds": seeds,
        "sizes": plan.sizes,
        "strategies": strategies,
        "chosen": chosen,
        "chosen_on": f"validation, {len(validation.labels):,} rows",
        "reached": {"ratio": ratio, "at_most_0.75": ratio is not None and ratio <= 0.75},
        "learning_curve": _foretold(pool, validation, test, classes, plan, seeds),
        "versions": versions(),
        "git_commit": git_commit(),
        "device": processor_name(),
        "finished": now().isoformat(timespec="seconds"),
    }


def _run(
    strategy: Strategy,
    pool: Embedded,
    held_out: tuple[Embedded, Embedded],
    plan: Plan,
    *,
    classes: int,
    seed: int,
    keep: Path | None,
) -> list[NDArray[np.bool_]]:
    """Return one simulation on validation and test, [points, rows] each; from `keep` where it is finished there."""
    name = f"{strategy}-{seed}-{plan.start}-{plan.step}-{plan.most}-{plan.c:g}.npz"
    path = keep / name if keep is not None else None
    if path is not None and path.is_file():
        with np.load(path) as kept:
            return [kept[split] for split in SPLITS]
    right = simulate(strategy, pool, held_out, plan, classes=classes, seed=seed, say=_tell)
    if path is not None:
        np.savez(path, **dict(zip(SPLITS, right, strict=True)))
    return right


def _accuracy(known: Embedded, held_out: Embedded, classes: int, c: float) -> float:
    given = probabilities_of(known, held_out.features, classes, c=c)
    return float((given.argmax(1) == held_out.labels).mean())


def _needed(right: dict[str, dict[str, NDArray[np.bool_]]], strategy: str, split: str, plan: Plan) -> dict[str, Any]:
    """Return curve and labels needed, with the interval from resampling rows and seeds of both curves together."""
    own, base = right[strategy][split], right["random"][split]
    sizes, random = plan.sizes, np.random.default_rng(0)
    needed = labels_needed(sizes, own.mean((0, 2)), float(base.mean((0, 2))[-1]))
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.bincount(random.integers(0, own.shape[2], own.shape[2]), minlength=own.shape[2]) / own.shape[2]
        chosen, others = (random.integers(0, len(one), len(one)) for one in (own, base))
        curves = (own[chosen].mean(0) @ rows, base[others].mean(0) @ rows)
        again = labels_needed(sizes, curves[0], float(curves[1][-1]))
        drawn.append(again if again is not None else np.inf)
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
    return {
        "accuracy": [round(float(value), 5) for value in own.mean((0, 2))],
        "last": accuracy_interval(own[:, -1]).to_dict(),
        "labels": needed,
        "ratio": None if needed is None else needed / sizes[-1],
        "ratio_low": float(low) / sizes[-1],
        "ratio_high": float(high) / sizes[-1] if np.isfinite(high) else None,
    }


def _foretold(
    pool: Embedded, validation: Embedded, test: Embedded, classes: int, plan: Plan, seeds: list[int]
) -> list[dict[str, Any]]:
    """Return, a seed, what the learning curve up to half of the labels promises for the other half, and what came."""
    half, made = plan.most // 2, []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(pool.labels))

        def right(places: NDArray[np.int64], held_out: Embedded) -> NDArray[np.bool_]:
            known = Embedded(pool.features[places], pool.labels[places])
            given = probabilities_of(known, held_out.features, classes, c=plan.c)
            return np.asarray(given.argmax(1) == held_out.labels)

        own = order[:half]
        curve = measure_curve(half, lambda places, own=own: right(own[places], validation), seed=seed)  # type: ignore[misc]
        gain = gain_of_more(curve, plan.most - half)
        came = right(order[: plan.most], test).mean() - right(own, test).mean()
        made.append({"seed": seed, "labels": half, "more": plan.most - half, **gain.to_dict(), "came": float(came)})
    return made


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
