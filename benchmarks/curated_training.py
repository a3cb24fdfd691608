"""Is a fine-tuning better after `label_issues`? Ticket sets, of whose training labels one in twenty is wrong.

    python benchmarks/curated_training.py lora_minilm --set train.epochs=6 head.init=probe --seeds 0 1 2 --jobs 2

Trains the recipe with each seed on the rows as they are, and on what the curator makes of them, with everything else
alike, and writes `benchmarks/results/curation/<name>.json`: both accuracies on the test split, whose labels are never
flipped, their difference with its 95 % interval (paired by row and by seed), and how many of the flips were flagged.
Runs are kept in `runs/curated_training/` and are not done twice. `--split validation` reads the same from validation
runs, to choose settings, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from curation import paired_by_seed
from distillation import right, trained

from peftlab.data.tickets.generate import generate_tickets
from peftlab.evaluation.intervals import wilson
from peftlab.evaluation.over_seeds import accuracy_interval
from peftlab.evaluation.predictions import FILE_NAME, VALIDATION_FILE
from peftlab.recipe.load import read_recipe
from peftlab.recipe.shipped import find_recipe
from peftlab.runs.environment import processor_name
from peftlab.runs.files import write_json
from peftlab.runs.result import read_result

RESULTS = Path(__file__).resolve().parent / "results" / "curation"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison of the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    recipe = find_recipe(asked.recipe)
    shared = ["run.trackers=[]", *asked.settings]
    if asked.split == "validation":
        shared.append("evaluation.score_test=false")
    curator = f'curate=[{{name="label_issues", judge="{asked.judge}", action="{asked.action}"}}]'
    places = {
        (arm, seed): asked.runs / asked.name / f"{asked.split}-{arm}-s{seed}"
        for seed in asked.seeds
        for arm in ("without", "with")
    }

    def done(which: tuple[str, int]) -> None:
        arm, seed = which
        words = [*shared, f"train.seed={seed}", *([curator] if arm == "with" else [])]
        trained(recipe, places[which], words, asked.threads)

    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(done, places))
    file = VALIDATION_FILE if asked.split == "validation" else FILE_NAME
    without, curated = (
        np.stack([right(places[arm, seed], file) for seed in asked.seeds]) for arm in ("without", "with")
    )
    language = str(read_recipe(recipe, shared).data.source).rpartition("-")[2]
    record = {
        "recipe": recipe.stem,
        "overrides": list(asked.settings),
        "curator": {"name": "label_issues", "judge": asked.judge, "action": asked.action},
        "scored_on": asked.split,
        "found": {str(seed): detection(places["with", seed], language) for seed in asked.seeds},
        "accuracy_without": accuracy_interval(without).to_dict(),
        "accuracy_with": accuracy_interval(curated).to_dict(),
        "difference": paired_by_seed(curated, without).interval().to_dict(),
        "without_by_seed": [float(row.mean()) for row in without],
        "with_by_seed": [float(row.mean()) for row in curated],
        "seeds": asked.seeds,
        "code": sorted({str(read_result(folder).versions.get("code")) for folder in places.values()}),
        "device": processor_name(),
    }
    print(json.dumps(record, indent=2))
    if asked.split == "test":
        write_json(RESULTS / f"{asked.name}.json", record)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program."""
    made = argparse.ArgumentParser(prog="curated_training.py", description=(__doc__ or "").partition("\n")[0])
    made.add_argument(
        "recipe", help="a recipe for one of the built-in ticket sets: a file, or the name of a shipped one"
    )
    made.add_argument("--name", required=True, help="name of the record")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--judge", choices=("auto", "probe", "tfidf"), default="tfidf")
    made.add_argument("--action", choices=("relabel", "drop", "weight"), default="relabel")
    made.add_argument(
        "--set", dest="settings", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of all runs"
    )
    made.add_argument("--split", choices=("validation", "test"), default="test")
    made.add_argument("--jobs", type=int, default=1)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--runs", type=Path, default=Path("runs/curated_training"))
    return made


def detection(folder: Path, language: str) -> dict[str, Any]:
    """Return how many of the flips the curator flagged, and how many of its flags were flips."""
    tickets = [one for one in generate_tickets(language) if one.split == "train"]  # type: ignore[arg-type]
    flipped = np.array([one.label != one.true_label for one in tickets])
    lines = (folder / "curation" / "changes.jsonl").read_text(encoding="utf-8").splitlines()
    flagged = np.zeros(len(tickets), bool)
    flagged[[json.loads(line)["row"] - 1 for line in lines]] = True
    hits = int((flipped & flagged).sum())
    return {
        "recall": wilson(hits, int(flipped.sum())).to_dict(),
        "precision": wilson(hits, int(flagged.sum())).to_dict(),
    }


if __name__ == "__main__":
    sys.exit(main())
