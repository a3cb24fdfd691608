"""What a search came to: the chosen rung on the test split, once, in a sentence and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftlab.encoders.saved import folder_bytes
from peftlab.errors import RunError
from peftlab.evaluation.intervals import Interval
from peftlab.ladders.climb import clears
from peftlab.ladders.outlook import MoreLabels, more_labels, untried
from peftlab.ladders.site import Site, Step

if TYPE_CHECKING:
    from peftlab.runs.result import Result

Verdict = Literal["reached", "not_reachable", "out_of_budget"]
SCHEMA_VERSION = 1


def judge(site: Site, steps: Sequence[Step]) -> dict[str, Any]:
    """Return the whole record of a search, JSON types only; scores the test rows of the chosen rung.

    The chosen rung is the one that cleared the target on validation, else the best there. `reached` only where the
    whole interval on the test split is at or above the target.
    """
    ladder = site.ladder
    best = chosen_step(steps, site)
    ended_early = any(step.state == "not begun" for step in steps) and not any(clears(one, ladder) for one in steps)
    ended_early = ended_early or any(one.state == "stopped" for step in steps for one in step.trials)
    if best is None:
        verdict: Verdict = "out_of_budget" if ended_early else "not_reachable"
        return _record(site, steps, None, None, verdict, None)
    test = score_once(site, best)
    reached = test.low >= (ladder.target or 1.0)
    verdict = "reached" if reached else "out_of_budget" if ended_early else "not_reachable"
    labels = None if reached or ended_early else more_labels(site, steps, best)
    return _record(site, steps, best, test, verdict, labels)


def chosen_step(steps: Sequence[Step], site: Site) -> Step | None:
    """Return the rung that cleared the target, else the best on validation, of equals the cheaper; None without any."""
    climbed = [step for step in steps if step.accuracy is not None]
    cleared = next((step for step in climbed if clears(step, site.ladder)), None)
    return cleared or max(climbed, key=lambda step: step.accuracy.value if step.accuracy else 0.0, default=None)


def score_once(site: Site, step: Step) -> Interval:
    """Return the accuracy of the rung's chosen run on the test split, with its 95 % interval.

    Raises RunError where the test rows are no longer those that stood beside the training rows.
    """
    from peftlab.evaluation.predictor import load_predictor
    from peftlab.runs.folder import run_recipe
    from peftlab.training.prepare import find_inputs

    result = _result(step)
    folder = site.work / step.chosen.name if step.chosen is not None else site.work
    site.console.print(f"verdict: scoring {folder.name} on the test split, once", markup=False)
    recipe = run_recipe(folder)
    scored = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"score_test": True})})
    found = find_inputs(scored, report_path=None, say=lambda _: None)
    if result.data is None or found.splits.fingerprint != result.data.fingerprint:
        raise RunError(f"{folder}: the data has changed since this run was trained; start the search anew")
    test = found.splits.test
    logits = load_predictor(folder).logits(test.texts, test.pairs)
    interval: Interval = found.task.score(logits, test, found.splits, recipe.task.config).metrics["accuracy"]
    return interval


def _result(step: Step) -> Result:
    if step.chosen is None or step.chosen.result is None:
        raise AssertionError("a climbed rung has a result")
    return step.chosen.result


def _record(
    site: Site,
    steps: Sequence[Step],
    best: Step | None,
    test: Interval | None,
    verdict: Verdict,
    labels: MoreLabels | None,
) -> dict[str, Any]:
    ladder = site.ladder
    looks = sum(step.accuracy is not None for step in steps)
    other = untried(site, steps, best) if verdict != "reached" else None
    cost = _cost(site, best)
    result = _result(best) if best is not None else None
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict,
        "rung": best.rung.name if best is not None else None,
        "metric": {"name": "accuracy", "split": "test", **test.to_dict()} if test is not None else None,
        "cost": cost,
        "sentence": sentence(verdict, best, test, ladder.target or 0.0, cost, labels, other),
        "target": ladder.target,
        "what_would_change_it": {"labels": _labels(labels), "rung": other},
        "looks_at_validation": looks,
        "title": ladder.title,
        "ceilings": {key: value for key, value in ladder.ceilings.model_dump().items() if value is not None},
        "encoder": result.encoder.model_dump() if result is not None else None,
        "stand_in": result.stand_in if result is not None else False,
        "data": _data(result),
        "device": result.device.model_dump() if result is not None and result.device is not None else None,
        "versions": dict(result.versions) if result is not None else {},
        "rungs": [_line(step) for step in steps],
    }


def _data(result: Result | None) -> dict[str, Any] | None:
    """Return the rows without the places of their files, which are this machine's."""
    if result is None or result.data is None:
        return None
    source = {key: result.data.source[key] for key in ("requested", "used") if key in result.data.source}
    return {**result.data.model_dump(), "source": source}


def _labels(found: MoreLabels | None) -> dict[str, Any] | None:
    if found is None:
        return None
    ends = {name: getattr(found, name) for name in ("rows", "low", "high")}
    rounded = {name: math.ceil(value) if math.isfinite(value) else None for name, value in ends.items()}
    return {**rounded, "curve_of": found.rung, "exponent": round(found.exponent, 4)}


def _cost(site: Site, best: Step | None) -> dict[str, Any]:
    result = _result(best) if best is not None else None
    parameters = result.parameters if result is not None else None
    peaks = [result.memory.peak_rss_bytes or 0, result.memory.peak_device_bytes or 0] if result is not None else [0]
    latency = result.budget.get("latency_ms") if result is not None else None
    return {
        "minutes": round(site.account.spent() / 60, 3),
        "run_seconds": round(result.seconds.total, 2) if result is not None else None,
        "trainable_parameters": parameters.trainable if parameters is not None else None,
        "shipped_bytes": _shipped(best),
        "peak_memory_bytes": max(peaks),
        "latency_ms": round(latency.measured, 3) if latency is not None else None,
        "labels": result.data.rows.get("train") if result is not None and result.data is not None else None,
    }


def _shipped(step: Step | None) -> int | None:
    """Return the bytes that the rung's chosen run ships: what it trained, and its encoder where that was adapted."""
    result = step.chosen.result if step is not None and step.chosen is not None else None
    if step is None or result is None or result.parameters is None:
        return None
    adapted = result.encoder.used if step.rung.pretraining is not None else None
    return result.parameters.shipped_bytes + (folder_bytes(Path(adapted)) if adapted is not None else 0)


def _line(step: Step) -> dict[str, Any]:
    result = step.chosen.result if step.chosen is not None else None
    parameters = result.parameters if result is not None else None
    return {
        "rung": step.rung.name,
        "about": step.rung.about,
        "state": step.state,
        "reason": step.reason,
        "method": result.method if result is not None else step.rung.method,
        "encoder": result.encoder.used if result is not None else None,
        "validation": step.accuracy.to_dict() if step.accuracy is not None else None,
        "gain": step.gain.to_dict() if step.gain is not None else None,
        "seconds": round(step.seconds, 2),
        "trainable_parameters": parameters.trainable if parameters is not None else None,
        "shipped_bytes": _shipped(step),
        "chosen": step.chosen.name if step.chosen is not None else None,
        "trials": [
            {
                "name": one.name,
                "state": one.state,
                "learning_rate": one.learning_rate,
                "validations": len(one.values),
                "last": one.values[-1] if one.values else None,
                "seconds": round(one.seconds, 2),
                "reason": one.reason,
            }
            for one in step.trials
        ],
    }


def sentence(
    verdict: Verdict,
    best: Step | None,
    test: Interval | None,
    target: float,
    cost: dict[str, Any],
    labels: MoreLabels | None,
    other: str | None,
) -> str:
    """Return the verdict as a person reads it."""
    if best is None or test is None:
        why = "the minutes were used up before the first model" if verdict == "out_of_budget" else "no rung was climbed"
        return f"{verdict}: {why}"
    scored = f"{test.value:.4f} (95 % interval {test.low:.4f} to {test.high:.4f}, n = {test.n:,} test rows)"
    spent = (
        f"{cost['trainable_parameters']:,} trained parameters, {cost['shipped_bytes'] / 1e6:.2f} MB shipped, "
        f"{cost['minutes']:.1f} minutes of search"
    )
    if verdict == "reached":
        return f"reached by {best.rung.name} at {spent}: test accuracy {scored}, target {target:g}"
    opening = (
        "out of budget: the minutes were used up" if verdict == "out_of_budget" else "not reachable under this budget"
    )
    change = " or ".join(part for part in (_labels_text(labels), other) if part)
    return (
        f"{opening}: best {best.rung.name} with test accuracy {scored}, {_short_by(test, target)}; {spent}; what would "
        f"change it: {change or 'nothing that this ladder knows'}"
    )


def _short_by(test: Interval, target: float) -> str:
    if test.high < target:
        return f"wholly below the target {target:g}, by {100 * (target - test.value):.2f} points"
    if test.value < target:
        return f"{100 * (target - test.value):.2f} points below the target {target:g}, which lies within the interval"
    return f"above the target {target:g}, which still lies within the interval, so it is not shown to be reached"


def _labels_text(found: MoreLabels | None) -> str:
    if found is None:
        return ""
    if found.rows == 0:
        return "more test rows, which would narrow the interval"
    if not math.isfinite(found.rows):
        return f"hardly more labels (the error of {found.rung} does not fall with them)"
    high = f"{math.ceil(found.high):,}" if math.isfinite(found.high) else "without an upper end"
    ends = f"{math.ceil(found.low):,} to {high}"
    return f"about {math.ceil(found.rows):,} more labels ({ends}, by the learning curve of {found.rung})"
