"""Does a student of three seeds beat the same recipe without teachers? Paired by test row, over seeds.

    python benchmarks/distillation.py lora_minilm_banking77 --seeds 0 1 2
    python benchmarks/distillation.py full_rbt3 --set data.source=online-shopping --unlabelled 'corpus/*.txt.xz'

Trains the recipe with each seed (the teachers, which are the single students too), then with each seed as a student of
all of them, and writes `benchmarks/results/distillation/<recipe>.json`: both accuracies, their difference with its 95 %
interval (rows and seeds random, `peftlab/evaluation/over_seeds.py`), and the ensemble's own accuracy. Runs are kept in
`runs/distillation/` and are not done twice. All of them keep the validation rows apart, so that teachers saw none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.over_seeds import accuracy_interval, paired_difference
from peftlab.evaluation.predictions import FILE_NAME, read_predictions
from peftlab.recipe.shipped import find_recipe
from peftlab.runs.files import write_json
from peftlab.runs.result import read_result
from peftlab.suites.execute import environment

RESULTS = Path(__file__).resolve().parent / "results" / "distillation"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison of the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    recipe = find_recipe(asked.recipe)
    shared = ["data.train_on_validation=false", "run.trackers=[]", *asked.settings]
    if not any(word.startswith("data.split_seed=") for word in shared):
        shared.append("data.split_seed=0")  # every seed holds the same rows out
    runs = asked.runs / recipe.stem
    single = {seed: trained(recipe, runs / f"single-s{seed}", [*shared, f"train.seed={seed}"]) for seed in asked.seeds}
    teaching = [
        f"distill.teachers={[str(folder.resolve()) for folder in single.values()]!r}",
        f"distill.weight={asked.weight}",
        f"distill.temperature={asked.temperature}",
        *([f"distill.unlabelled={list(asked.unlabelled)!r}"] if asked.unlabelled else []),
    ]
    student = {
        seed: trained(recipe, runs / f"student-s{seed}", [*shared, *teaching, f"train.seed={seed}"])
        for seed in asked.seeds
    }
    found = compare(list(single.values()), list(student.values()))
    settings = {"weight": asked.weight, "temperature": asked.temperature, "unlabelled": list(asked.unlabelled)}
    path = RESULTS / f"{asked.name or recipe.stem}.json"
    write_json(
        path, {"recipe": recipe.stem, "overrides": list(asked.settings), "seeds": asked.seeds, **settings, **found}
    )
    print(json.dumps(found, indent=2))
    print(path)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program."""
    made = argparse.ArgumentParser(prog="distillation.py", description=(__doc__ or "").partition("\n")[0])
    made.add_argument("recipe", help="a recipe that trains by gradient: a file, or the name of a shipped one")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--weight", type=float, default=0.5)
    made.add_argument("--temperature", type=float, default=2.0)
    made.add_argument("--unlabelled", nargs="*", default=[], help="files of texts without labels")
    made.add_argument(
        "--set", dest="settings", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of all runs"
    )
    made.add_argument("--name", help="name of the record, where one recipe is compared in several ways")
    made.add_argument("--runs", type=Path, default=Path("runs/distillation"))
    return made


def trained(recipe: Path, folder: Path, words: Sequence[str], threads: int | None = None) -> Path:
    """Train, or go on training, in `folder`; a finished run is left as it is. `threads`: None for all cores."""
    command = [sys.executable, "-m", "peftlab.train", str(recipe), *words, f"run.dir={folder}", "train.resume=auto"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment(threads))
    return folder


def compare(single: Sequence[Path], student: Sequence[Path]) -> dict[str, Any]:
    """Return accuracies and differences with their intervals from the test predictions of both groups of runs."""
    alone, taught = (np.stack([right(folder) for folder in group]) for group in (single, student))
    ensemble = np.stack([chances(folder) for folder in single]).mean(axis=0).argmax(axis=1) == gold(single[0])
    difference = paired_difference(taught, alone)
    return {
        "single": accuracy_interval(alone).to_dict(),
        "student": accuracy_interval(taught).to_dict(),
        "ensemble": accuracy_interval(ensemble[None]).to_dict(),
        "student_minus_single": difference.interval().to_dict(),
        "above_zero": difference.interval().low > 0,
        "single_by_seed": [float(row.mean()) for row in alone],
        "student_by_seed": [float(row.mean()) for row in taught],
        "code": [read_result(folder).versions.get("code") for folder in (*single, *student)],
    }


def chances(folder: Path) -> NDArray[np.float64]:
    """Return the probabilities of a run's test rows, [rows, labels]."""
    return np.array([list(row.probabilities.values()) for row in read_predictions(folder / FILE_NAME)])


def gold(folder: Path) -> NDArray[np.int64]:
    """Return the label indices of a run's test rows."""
    rows = list(read_predictions(folder / FILE_NAME))
    names = {name: index for index, name in enumerate(rows[0].probabilities)}
    return np.array([names[str(row.gold)] for row in rows])


def right(folder: Path, file: str = FILE_NAME) -> NDArray[np.bool_]:
    """Return whether each row of a run's predictions `file`, by default the test rows, was right, [rows]."""
    return np.array([row.gold == row.predicted for row in read_predictions(folder / file)])


if __name__ == "__main__":
    sys.exit(main())
