"""What a suite's records come to: accuracy, cost and verdict of each recipe, and the answer to its question."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from peftlab.errors import RunError
from peftlab.evaluation.intervals import Interval, verdict
from peftlab.evaluation.non_inferiority import NonInferiority, non_inferiority
from peftlab.evaluation.over_seeds import accuracy_interval, chance_of_reaching, paired_difference
from peftlab.evaluation.paired import McNemar, mcnemar
from peftlab.reports.suite_records import Asked, RunRecord, SuiteRecords
from peftlab.runs.result import Result

TARGET_WORDS = {"reached": "yes", "not_reached": "no", "undecided": "open"}


@dataclass(frozen=True)
class Costs:
    """What a recipe costs: counts are the largest over its seeds, measurements the median. None: not measured."""

    trainable: int
    total: int
    surviving: int | None
    embedding: int | None
    shipped_bytes: int
    seconds_total: float
    seconds_train: float | None
    seconds_cpu: float
    tokens_per_second: float | None
    peak_rss_bytes: float | None
    peak_device_bytes: float | None

    @property
    def share(self) -> float:
        """Trained of all parameters, 0 to 1."""
        return self.trainable / max(1, self.total)

    @property
    def share_text(self) -> str:
        """That in per cent with three digits, since the shares compared go from 0.001 to 100 %."""
        return f"{100 * self.share:.3g} %"


@dataclass(frozen=True)
class Arm:
    """One recipe over its seeds. `compared`: why it was or was not compared with the reference."""

    name: str
    runs: tuple[RunRecord, ...]
    accuracy: Interval
    spread: tuple[float, float]
    costs: Costs
    over: tuple[str, ...]
    target: str | None
    chance: float | None
    comparison: NonInferiority | None = None
    paired: McNemar | None = None
    compared: str = ""

    @property
    def seeds(self) -> int:
        """Number of seeds that ran to the end."""
        return len(self.runs)


@dataclass(frozen=True)
class Findings:
    """All of a report's figures. `arms` from cheapest to dearest; `front`: those better than everything cheaper."""

    asked: Asked
    target: float | None
    arms: tuple[Arm, ...]
    failed: tuple[RunRecord, ...]
    missing: tuple[str, ...]
    front: tuple[str, ...]

    @property
    def reference(self) -> Arm | None:
        """The arm that the others are compared with, where it has runs."""
        return next((arm for arm in self.arms if arm.name == self.asked.reference), None)


def find(records: SuiteRecords) -> Findings:
    """Return the findings of a suite's records."""
    done = [run for run in records.runs if run.result.status == "ok"]
    target = records.asked.target
    if target is None:
        asked = {run.result.target.asked for run in done if run.result.target is not None}
        target = asked.pop() if len(asked) == 1 else None
    names = sorted({run.arm for run in done})
    arms = [_arm(name, [run for run in done if run.arm == name], records.asked, target) for name in names]
    arms.sort(key=lambda arm: (arm.costs.trainable, arm.costs.shipped_bytes, arm.name))
    front, best = [], -1.0
    for arm in arms:
        if arm.accuracy.value > best:
            front.append(arm.name)
            best = arm.accuracy.value
    return Findings(
        asked=records.asked,
        target=target,
        arms=_compared(arms, records.asked),
        failed=tuple(run for run in records.runs if run.result.status != "ok"),
        missing=records.missing,
        front=tuple(front),
    )


def _arm(name: str, runs: Sequence[RunRecord], asked: Asked, target: float | None) -> Arm:
    runs = sorted(runs, key=lambda run: run.seed)
    tables = [run.correct for run in runs]
    if len({len(table) for table in tables}) > 1:
        raise RunError(f"the runs of {name} have test splits of different sizes; a report is of runs on the same rows")
    correct = np.stack(tables)
    values = [run.result.metrics.test["accuracy"].value for run in runs]
    accuracy, costs = accuracy_interval(correct), _costs([run.result for run in runs])
    return Arm(
        name=name,
        runs=tuple(runs),
        accuracy=accuracy,
        spread=(min(values), max(values)),
        costs=costs,
        over=_over(costs, asked),
        target=None if target is None else verdict(accuracy, target),
        chance=None if target is None else chance_of_reaching(correct, target),
    )


def _costs(results: Sequence[Result]) -> Costs:
    counts = [result.parameters for result in results if result.parameters is not None]
    survivors = [count.model_dump().get("surviving") for count in counts]

    def median(read: Callable[[Result], float | None]) -> float | None:
        values = [value for result in results if (value := read(result)) is not None]
        return statistics.median(values) if values else None

    return Costs(
        trainable=max(count.trainable for count in counts),
        total=max(count.total for count in counts),
        surviving=max((one for one in survivors if one is not None), default=None),
        embedding=max((count.embedding for count in counts if count.embedding is not None), default=None),
        shipped_bytes=max(count.shipped_bytes for count in counts),
        seconds_total=statistics.median(result.seconds.total for result in results),
        seconds_train=median(lambda result: result.seconds.train),
        seconds_cpu=statistics.median(result.seconds.cpu for result in results),
        tokens_per_second=median(lambda result: result.tokens_per_second),
        peak_rss_bytes=median(lambda result: result.memory.peak_rss_bytes),
        peak_device_bytes=median(lambda result: result.memory.peak_device_bytes),
    )


def _over(costs: Costs, asked: Asked) -> tuple[str, ...]:
    """Return the names of the ceilings that the recipe does not keep."""
    memory = [used / 1e6 for used in (costs.peak_rss_bytes, costs.peak_device_bytes) if used is not None]
    # What was not measured was not shown to keep its ceiling.
    spent = {
        "trainable_parameters": costs.trainable,
        "minutes": costs.seconds_total / 60,
        "memory_mb": max(memory, default=math.inf),
    }
    return tuple(name for name, limit in asked.ceilings.items() if spent.get(name, math.inf) > limit)


def _compared(arms: Sequence[Arm], asked: Asked) -> tuple[Arm, ...]:
    """Return the arms with their comparison with the reference, corrected for their number."""
    if asked.reference is None or asked.margin is None:
        return tuple(replace(arm, compared="the suite names no reference and margin") for arm in arms)
    reference = next((arm for arm in arms if arm.name == asked.reference), None)
    if reference is None:
        return tuple(replace(arm, compared=f"the reference {asked.reference} has no finished run") for arm in arms)
    why = {arm.name: _incomparable(arm, reference) for arm in arms}
    able = [arm for arm in arms if not why[arm.name]]
    theirs = np.stack([run.correct for run in reference.runs])
    ours = {arm.name: np.stack([run.correct for run in arm.runs]) for arm in able}
    verdicts = non_inferiority([paired_difference(ours[arm.name], theirs) for arm in able], asked.margin)
    by_name = dict(zip(ours, verdicts, strict=True))
    return tuple(
        replace(arm, comparison=by_name[arm.name], paired=mcnemar(ours[arm.name][0], theirs[0]))
        if arm.name in by_name
        else replace(arm, compared=why[arm.name])
        for arm in arms
    )


def _incomparable(arm: Arm, reference: Arm) -> str:
    if arm.name == reference.name:
        return "the reference itself"
    golds = {run.predictions.gold if run.predictions is not None else None for run in (*arm.runs, *reference.runs)}
    if None in golds:
        return "per-example predictions were not kept"
    return "the test rows differ from the reference's" if len(golds) > 1 else ""


def answer(findings: Findings) -> str:
    """Return the report's first sentence: the cheapest recipe that meets the target, and how sure that is."""
    target, eligible = findings.target, [arm for arm in findings.arms if not arm.over]
    within = " within the ceilings" if findings.asked.ceilings else ""
    if not findings.arms:
        return "No run of this suite came to its end, so no recipe can be said to meet a target."
    if target is None:
        best = max(findings.arms, key=lambda arm: arm.accuracy.value)
        return f"No target was set; the highest test accuracy is that of {_stated(best)}."
    if not eligible:
        return f"No recipe keeps the ceilings, so none meets the target accuracy of {target:g} within them."
    for arm in eligible:
        if arm.target == "reached":
            return (
                f"The cheapest recipe that meets the target accuracy of {target:g}{within} is {_stated(arm)}; "
                f"the probability that it truly does is {chance_text(arm.chance)}."
            )
    if any(arm.target == "undecided" for arm in eligible):
        likeliest = max(eligible, key=lambda arm: arm.chance or 0.0)
        return (
            f"No recipe is shown to meet the target accuracy of {target:g}{within}; the likeliest to meet it is "
            f"{_stated(likeliest)}, with a probability of {chance_text(likeliest.chance)}."
        )
    # Not the likeliest: where all chances are tiny, the widest interval would win.
    best = max(eligible, key=lambda arm: arm.accuracy.value)
    return (
        f"No recipe meets the target accuracy of {target:g}{within}: even the best, {_stated(best)}, "
        f"lies below it with its whole interval (probability of meeting it {chance_text(best.chance)})."
    )


def chance_text(chance: float | None) -> str:
    """Return a probability in per cent, never as certain."""
    if chance is None:
        return "-"
    return "above 99.9 %" if chance > 0.999 else "below 0.1 %" if chance < 0.001 else f"{100 * chance:.1f} %"


def _stated(arm: Arm) -> str:
    accuracy, costs = arm.accuracy, arm.costs
    return (
        f"{arm.name} with {accuracy.value:.4f} (95 % interval {accuracy.low:.4f} to {accuracy.high:.4f}, "
        f"n = {accuracy.n:,} test rows, {arm.seeds} seed{'s' if arm.seeds > 1 else ''}) "
        f"and {costs.trainable:,} trained parameters ({costs.share_text} of all)"
    )
