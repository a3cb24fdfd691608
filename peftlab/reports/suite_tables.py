"""The tables and charts of a suite's report, ready to be written as Markdown or HTML."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peftlab.evaluation.abstention import risk_coverage
from peftlab.reports.suite_findings import TARGET_WORDS, Arm, Findings, chance_text
from peftlab.reports.suite_records import RunRecord
from peftlab.reports.svg_charts import Curve, Point, curves, scatter
from peftlab.reports.wording import bytes_text, seconds_text

_BINS = 10
_STEPS = 20
_MOST_CURVES = 11


@dataclass(frozen=True)
class Cell:
    """What a table shows, and the number by which it is sorted where it is one."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Table:
    """Heads and rows; the first column is text, the others are figures."""

    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def accuracy_table(findings: Findings) -> Table:
    """Return accuracy, interval, spread and the chance of reaching the target of each recipe."""
    heads = ["recipe", "test accuracy", "95 % interval", "seeds", "lowest to highest seed", "trained parameters"]
    target = findings.target
    heads += [] if target is None else [f"target {target:g} met", "probability"]
    heads += ["ceilings"] if findings.asked.ceilings else []
    rows = []
    for arm in findings.arms:
        accuracy = arm.accuracy
        row = [
            Cell(arm.name),
            Cell(f"{accuracy.value:.4f}", accuracy.value),
            Cell(f"{accuracy.low:.4f} to {accuracy.high:.4f}", accuracy.low),
            Cell(str(arm.seeds), arm.seeds),
            Cell(f"{arm.spread[0]:.4f} to {arm.spread[1]:.4f}" if arm.seeds > 1 else "-", arm.spread[0]),
            _parameters(arm),
        ]
        if target is not None:
            row += [Cell(TARGET_WORDS[arm.target or "undecided"]), Cell(chance_text(arm.chance), arm.chance)]
        if findings.asked.ceilings:
            row.append(Cell("over: " + ", ".join(arm.over) if arm.over else "kept"))
        rows.append(tuple(row))
    return Table(tuple(heads), tuple(rows))


def comparison_table(findings: Findings) -> Table:
    """Return each recipe's difference from the reference and its non-inferiority verdict."""
    heads = (
        "recipe",
        "difference",
        "90 % interval",
        "verdict",
        "p (Holm)",
        "rows only it / only the reference has right",
    )
    rows = []
    for arm in findings.arms:
        found, paired = arm.comparison, arm.paired
        if found is None or paired is None:
            rows.append(
                (Cell(arm.name), Cell("-"), Cell("-"), Cell(f"not compared: {arm.compared}"), Cell("-"), Cell("-"))
            )
            continue
        gap = found.difference
        discordant = f"{paired.only_first} / {paired.only_second} (McNemar exact p {paired.exact:.3g})"
        rows.append(
            (
                Cell(arm.name),
                Cell(f"{100 * gap.value:+.2f} points", gap.value),
                Cell(f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}", gap.low),
                Cell(found.words),
                Cell(f"{found.p_value:.3g}", found.p_value),
                Cell(discordant, paired.only_first - paired.only_second),
            )
        )
    return Table(heads, tuple(rows))


def cost_table(findings: Findings) -> Table:
    """Return what each recipe costs; time per token is relative to the reference where both ran on like machines."""
    relative = findings.reference is not None
    heads = ["recipe", "trained at start and peak", "left at the end", "share of all", "in embeddings", "shipped"]
    heads += ["whole run", "training", "processor time", "peak memory", "peak device memory"]
    heads += [f"time per token, {findings.asked.reference} = 1"] if relative else []
    rows = []
    for arm in findings.arms:
        cost = arm.costs
        embedding = (cost.embedding or 0) / max(1, cost.total)
        row = [
            Cell(arm.name),
            Cell(f"{cost.trainable:,}", cost.trainable),
            Cell(
                f"{cost.surviving if cost.surviving is not None else cost.trainable:,}",
                cost.surviving or cost.trainable,
            ),
            Cell(cost.share_text, cost.share),
            Cell(f"{embedding:.1%}" if cost.embedding is not None else "-", embedding),
            Cell(bytes_text(cost.shipped_bytes), cost.shipped_bytes),
            *(_seconds(value) for value in (cost.seconds_total, cost.seconds_train, cost.seconds_cpu)),
            *(_bytes(value) for value in (cost.peak_rss_bytes, cost.peak_device_bytes)),
        ]
        rows.append(tuple(row + ([_relative(arm, findings.reference)] if findings.reference is not None else [])))
    return Table(tuple(heads), tuple(rows))


def class_table(findings: Findings) -> Table | None:
    """Return the F1 of each class, the mean over seeds, a column a recipe; None where no run has classes."""
    values: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    support: dict[str, int] = {}
    for arm in findings.arms:
        for run in arm.runs:
            for one in run.result.scores.per_class if run.result.scores is not None else ():
                values[one.label][arm.name].append(one.f1)
                support[one.label] = one.support
    if not values:
        return None
    rows = []
    for label, by_arm in values.items():
        figures = [_mean(by_arm.get(arm.name, [])) for arm in findings.arms]
        cells = [Cell("-" if figure is None else f"{figure:.3f}", figure) for figure in figures]
        rows.append((Cell(label), Cell(f"{support[label]:,}", support[label]), *cells))
    return Table(("class (F1)", "test rows", *(arm.name for arm in findings.arms)), tuple(rows))


def failure_table(findings: Findings) -> Table | None:
    """Return the runs that did not come to their end or have no record; None where there are none."""
    rows = [(Cell(run.name), Cell(run.result.status), Cell(run.result.reason or "-")) for run in findings.failed]
    rows += [
        (Cell(name), Cell("no record"), Cell("not run yet, or its record was not kept")) for name in findings.missing
    ]
    return Table(("run", "status", "reason"), tuple(rows)) if rows else None


def parameters_chart(findings: Findings) -> str:
    """Return accuracy against trained parameters."""
    points = [_point(arm, arm.costs.trainable) for arm in findings.arms]
    title = "Test accuracy against trained parameters"
    return scatter(
        points,
        title=title,
        across="trained parameters (log)",
        front=findings.front,
        target=findings.target,
        band=_band(findings),
    )


def time_chart(findings: Findings) -> str:
    """Return accuracy against the wall time of a run."""
    points = [_point(arm, arm.costs.seconds_total) for arm in findings.arms]
    title = "Test accuracy against the wall time of a run"
    across = "seconds of a whole run, median over seeds (log)"
    return scatter(points, title=title, across=across, target=findings.target, band=_band(findings))


def reliability_chart(findings: Findings) -> str | None:
    """Return stated confidence against the share that was right, all seeds of a recipe together; None without rows."""
    lines = [Curve(arm.name, points) for arm in findings.arms[:_MOST_CURVES] if (points := _reliability(_sure(arm)))]
    if not lines:
        return None
    across, title = "stated probability of the predicted label", "Reliability: stated probability against share right"
    return curves(lines, title=title, across=across, upward="share of rows right", square=True, fixed=True)


def risk_coverage_chart(findings: Findings) -> str | None:
    """Return accuracy of the surest test rows against their share, seeds of a recipe together; None without rows."""
    lines = [Curve(arm.name, _risk_coverage(pairs)) for arm in findings.arms[:_MOST_CURVES] if (pairs := _sure(arm))]
    if not lines:
        return None
    across, title = "coverage: share of texts answered, the surest first", "Accuracy of the surest texts, by coverage"
    return curves(lines, title=title, across=across, upward="accuracy of these")


def _sure(arm: Arm) -> list[tuple[float, bool]]:
    """Return the stated probability of each test row of an arm's runs, with whether the label is right."""
    return [
        (share, gold == told)
        for run in arm.runs
        if run.predictions is not None
        for share, gold, told in zip(
            run.predictions.confidence, run.predictions.gold, run.predictions.predicted, strict=True
        )
    ]


def _risk_coverage(pairs: Sequence[tuple[float, bool]]) -> tuple[tuple[float, float], ...]:
    """Return the points of a curve at about every twentieth of the rows; fewer rows say nothing of it."""
    score, right = np.asarray([share for share, _ in pairs]), np.asarray([hit for _, hit in pairs], np.bool_)
    _, coverage, accuracy = risk_coverage(score, right)
    places = np.unique(np.searchsorted(coverage, np.arange(1, _STEPS + 1) / _STEPS - 1e-9))
    return tuple((float(coverage[place]), float(accuracy[place])) for place in places)


def learning_chart(findings: Findings) -> str | None:
    """Return the validation curve of each recipe's first seed, over epochs; None where no metric lines were kept."""
    lines = []
    for arm in findings.arms:
        run = next((run for run in arm.runs if run.lines is not None and run.lines.validations), None)
        if run is None or run.lines is None:
            continue
        points = tuple(
            (one.epoch, one.metrics["accuracy"]) for one in run.lines.validations if "accuracy" in one.metrics
        )
        lines += [Curve(run.name, points)] if points else []
    if not lines:
        return None
    return curves(lines, title="Validation accuracy over epochs", across="epoch", upward="validation accuracy")


def _reliability(pairs: Sequence[tuple[float, bool]]) -> tuple[tuple[float, float], ...]:
    """Return mean confidence and share right of the bins that hold at least ten rows."""
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for share, right in pairs:
        bins[min(_BINS - 1, int(share * _BINS))].append((share, right))
    kept = [bins[place] for place in sorted(bins) if len(bins[place]) >= 10]
    return tuple((statistics.fmean(s for s, _ in held), statistics.fmean(float(r) for _, r in held)) for held in kept)


def _point(arm: Arm, cost: float) -> Point:
    accuracy, says = arm.accuracy, f"{arm.name}: {arm.accuracy.value:.4f}"
    says += f" ({accuracy.low:.4f} to {accuracy.high:.4f}), {arm.costs.trainable:,} trained parameters, "
    says += f"{seconds_text(arm.costs.seconds_total)}, {arm.seeds} seed{'s' if arm.seeds > 1 else ''}"
    return Point(arm.name, max(1.0, cost), accuracy.value, accuracy.low, accuracy.high, says, hollow=bool(arm.over))


def _band(findings: Findings) -> tuple[str, float, float] | None:
    reference = findings.reference
    if reference is None:
        return None
    return f"{reference.name}, 95 % interval", reference.accuracy.low, reference.accuracy.high


def _parameters(arm: Arm) -> Cell:
    cost = arm.costs
    return Cell(f"{cost.trainable:,} ({cost.share_text})", cost.trainable)


def _seconds(value: float | None) -> Cell:
    return Cell("-" if value is None else seconds_text(value), value)


def _bytes(value: float | None) -> Cell:
    return Cell("-" if value is None else bytes_text(round(value)), value)


def _relative(arm: Arm, reference: Arm) -> Cell:
    """Return the time per token relative to the reference's, where both have one and ran on machines of one kind."""
    ours, theirs = arm.costs.tokens_per_second, reference.costs.tokens_per_second
    machines = {_machine(run) for run in (*arm.runs, *reference.runs)}
    if not ours or not theirs or len(machines) > 1:
        return Cell("-")
    return Cell(f"{theirs / ours:.2f}", theirs / ours)


def _machine(run: RunRecord) -> str:
    return run.result.device.model_dump_json() if run.result.device is not None else ""


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
