"""What finished runs may route without people, at several promises, and how often the promise breaks in simulation.

    python benchmarks/calibration.py RUN ... --out benchmarks/results/calibration/NAME.json

For each run and target: temperature, threshold and coverage from the validation rows, then the check on the test rows.
The simulation takes the run's test rows, with what it said of them, as a population whose true risk at each threshold
is known, and draws data sets of as many rows as the run has validation rows from it, with replacement. It compares the
tests in a fixed order with picking the lowest threshold whose own Clopper-Pearson bound is good. Runs are not changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.abstention import fit_abstention, fit_temperature
from peftlab.evaluation.routing import tempered
from peftlab.runs.environment import git_commit, versions
from peftlab.runs.files import write_json
from peftlab.shipping.calibrating import Asked, Scored, calibrate, score_run

TARGETS = (0.95, 0.97)
CONFIDENCE = 0.95
DATASETS = 500


def main() -> int:
    """Calibrate the runs that are named and write one record."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("runs", nargs="+", metavar="RUN", type=Path)
    made.add_argument("--out", required=True, type=Path)
    asked = made.parse_args()
    record: dict[str, Any] = {
        "confidence": CONFIDENCE,
        "datasets": DATASETS,
        "versions": versions(),
        "git_commit": git_commit(),
        "runs": [],
    }
    for folder in asked.runs:
        scored = score_run(folder, lambda sentence: print(sentence, file=sys.stderr))
        targets = [of_target(scored, target) for target in TARGETS]
        name = scored.result.recipe.name
        record["runs"].append({"recipe": name, "recipe_hash": scored.result.recipe.hash, "targets": targets})
        for one in targets:
            print(name, one["target"], one["coverage"], one["test"], one["simulated"])
    write_json(asked.out, record)
    return 0


def of_target(scored: Scored, target: float) -> dict[str, Any]:
    """Return the calibration for one target, as it is and without paying for the choice of the model."""
    asked = Asked(target, CONFIDENCE, scored.candidates, scored.model)
    rows = scored.chances, scored.rows.labels
    found = calibrate(rows, scored.test, scored.splits, asked)
    alone = calibrate(rows, scored.test, scored.splits, Asked(target, CONFIDENCE, 1, scored.model))
    kept = {"candidates", "temperature", "threshold", "routed", "wrong", "coverage", "rows_needed", "test"}
    return {
        "target": target,
        **found.model_dump(mode="json", include=kept | {"rows_fitted", "rows_tested"}),
        "without_paying_for_the_choice": alone.model_dump(mode="json", include=kept),
        "simulated": simulate(scored, target),
    }


def simulate(scored: Scored, target: float) -> dict[str, Any]:
    """Return how often the promise broke, and the mean true coverage, in data sets drawn from the test rows."""
    if scored.test is None:
        raise SystemExit("the simulation needs a run whose test rows were scored")
    chances, labels = scored.test, scored.splits.test.labels
    rows, generator = len(scored.rows), np.random.default_rng(0)
    outcomes: dict[str, list[tuple[bool, float]]] = {"in_order": [], "best_own_bound": []}
    for _ in range(DATASETS):
        drawn = generator.integers(0, len(labels), rows)
        fit = fit_abstention(chances[drawn], labels[drawn], target=target, confidence=CONFIDENCE)
        outcomes["in_order"].append(truth(chances, labels, fit.temperature, fit.threshold, target))
        picked = pick_best(chances[drawn], labels[drawn], target)
        outcomes["best_own_bound"].append(truth(chances, labels, *picked, target))
    return {
        name: {
            "broken": float(np.mean([broken for broken, _ in some])),
            "nothing_routed": float(np.mean([coverage == 0 for _, coverage in some])),
            "mean_coverage": float(np.mean([coverage for _, coverage in some])),
        }
        for name, some in outcomes.items()
    }


def truth(
    chances: NDArray[np.float64],
    labels: NDArray[np.int64],
    temperature: float,
    threshold: float | None,
    target: float,
) -> tuple[bool, float]:
    """Return whether the population's accuracy on what is routed is below the target, and its coverage."""
    if threshold is None:
        return False, 0.0
    routed = tempered(chances, temperature).max(axis=1) >= threshold
    if not routed.any():
        return False, 0.0
    right = (chances.argmax(axis=1) == labels)[routed]
    return bool(right.mean() < target), float(routed.mean())


def pick_best(chances: NDArray[np.float64], labels: NDArray[np.int64], target: float) -> tuple[float, float | None]:
    """Return the lowest of all thresholds whose own bound, on the rows that chose it, is good: what not to do."""
    from scipy.stats import binom

    temperature = fit_temperature(chances, labels)
    score = tempered(chances, temperature).max(axis=1)
    order = np.argsort(-score, kind="stable")
    errors = np.cumsum((chances.argmax(axis=1) != labels)[order])
    good = binom.cdf(errors, np.arange(1, len(order) + 1), 1 - target) <= 1 - CONFIDENCE
    return temperature, float(score[order][np.flatnonzero(good)[-1]]) if good.any() else None


if __name__ == "__main__":
    sys.exit(main())
