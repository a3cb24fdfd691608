"""What would change the answer: more labels, by the learning curve of a cheap rung, or a rung that was not climbed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.over_seeds import Correct
from peftlab.ladders.climb import correct_rows, run_beside
from peftlab.ladders.rung_runs import next_encoder
from peftlab.ladders.site import Site, Step
from peftlab.recipe.plugins import load_plugin

SHARES = (4, 2)
"""The curve is that of a quarter, a half and all of the training rows."""
RESAMPLES = 1000


@dataclass(frozen=True)
class MoreLabels:
    """How many more labelled rows would bring the best rung to the target, with a 95 % interval; infinity: no number.

    `rung`: the rung whose learning curve says so. `exponent`: of the power law that its error follows.
    """

    rung: str
    rows: float
    low: float
    high: float
    exponent: float


def more_labels(site: Site, steps: Sequence[Step], best: Step) -> MoreLabels | None:
    """Return the labels that would be missing; None where no rung is cheap enough for a curve, or the minutes are over.

    The error of a classifier falls with its training rows as a power (Hestness et al. 2017, arXiv 1712.00409). The
    exponent is that of the best rung that is solved in closed form, at a quarter, a half and all of the rows; it is
    taken to hold for the best rung too. Its interval is from resampled validation rows.
    """
    cheap = [step for step in steps if step.chosen is not None and _closed_form(step)]
    target = site.ladder.target
    if not cheap or best.chosen is None or target is None:
        return None
    base = max(cheap, key=lambda step: step.accuracy.value if step.accuracy is not None else 0.0)
    if base.chosen is None or base.chosen.result is None or base.chosen.result.data is None:
        return None
    rows = base.chosen.result.data.rows["train"]
    curve: list[Correct] = []
    for share in SHARES:
        words = (f"data.train_rows={rows // share}",)
        tried = run_beside(site, base, f"{base.rung.name}-curve{share}", words)
        if tried is None or tried.state != "complete":
            return None
        curve.append(correct_rows(site.records, tried.name)[0])
    curve.append(correct_rows(site.records, base.chosen.name)[0])
    own = correct_rows(site.records, best.chosen.name)[0]
    counts = np.array([rows // share for share in (*SHARES, 1)], np.float64)
    return _extrapolated(base.rung.name, counts, np.stack([*curve, own]), target)


def _closed_form(step: Step) -> bool:
    result = step.chosen.result if step.chosen is not None else None
    return result is not None and load_plugin("methods", result.method).SOLVER != "gradient"


def _extrapolated(rung: str, counts: NDArray[np.float64], correct: NDArray[np.bool_], target: float) -> MoreLabels:
    """Return the missing labels from `correct` [points of the curve and the best rung, rows]."""
    generator = np.random.default_rng(0)
    draws = generator.integers(0, correct.shape[1], (RESAMPLES, correct.shape[1]))
    errors = 1 - np.stack([row[draws].mean(axis=1) for row in correct], axis=1)
    found = np.array([_missing(counts, one, target)[0] for one in errors])
    rows, exponent = _missing(counts, 1 - correct.mean(axis=1), target)
    low, high = (float(value) for value in np.quantile(found, [0.025, 0.975], method="inverted_cdf"))
    return MoreLabels(rung, rows, low, high, exponent)


def _missing(counts: NDArray[np.float64], errors: NDArray[np.float64], target: float) -> tuple[float, float]:
    """Return the missing rows and the exponent for the errors of the curve's points, the best rung's last."""
    half = 0.5 / 10_000  # no error at all has no logarithm
    exponent = -float(np.polyfit(np.log(counts), np.log(np.maximum(errors[:-1], half)), 1)[0])
    ratio = max(float(errors[-1]), half) / (1 - target)
    if ratio <= 1:
        return 0.0, exponent
    if exponent <= 0 or math.log(ratio) / exponent > 25:
        return math.inf, exponent
    return float(counts[-1]) * (ratio ** (1 / exponent) - 1), exponent


def untried(site: Site, steps: Sequence[Step], best: Step | None) -> str | None:
    """Return the first rung behind the best one that was not climbed, and why, or the next encoder; None for neither.

    A rung before the best one is cheaper, and was left behind already.
    """
    behind = steps if best is None else steps[[step.rung.name for step in steps].index(best.rung.name) + 1 :]
    for step in behind:
        if step.state != "climbed" and step.rung.waits_for is None and step.reason is not None:
            return f"the rung {step.rung.name} ({step.reason.splitlines()[-1]})"
    if any(step.rung.next_encoder and step.state == "climbed" for step in steps):
        return None
    following = next_encoder(site)
    return f"the next dearer encoder, {following}" if following is not None else None
