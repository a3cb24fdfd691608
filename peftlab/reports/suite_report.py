"""The report of a suite: one content, as Markdown with figures and as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peftlab.reports.suite_findings import Findings, answer, find
from peftlab.reports.suite_page import page
from peftlab.reports.suite_records import SuiteRecords
from peftlab.reports.suite_tables import (
    Table,
    accuracy_table,
    class_table,
    comparison_table,
    cost_table,
    failure_table,
    learning_chart,
    parameters_chart,
    reliability_chart,
    risk_coverage_chart,
    time_chart,
)
from peftlab.reports.svg_charts import standalone
from peftlab.runs.files import write_text

MARKDOWN, PAGE = "REPORT.md", "REPORT.html"


@dataclass(frozen=True)
class Section:
    """A part of the report: texts, then the chart (its file name and SVG), then the table, folded where it is long."""

    title: str
    texts: tuple[str, ...] = ()
    chart: tuple[str, str] | None = None
    table: Table | None = None
    folded: bool = False


def report_files(records: SuiteRecords) -> dict[str, str]:
    """Return the report's files by name: REPORT.md, REPORT.html and the figures. The same records, the same bytes."""
    findings = find(records)
    first, sections = answer(findings), tuple(_sections(findings, records))
    title = records.asked.title
    files = {MARKDOWN: markdown(title, first, sections), PAGE: page(title, first, sections)}
    return files | {part.chart[0]: standalone(part.chart[1]) for part in sections if part.chart is not None}


def write_report(records: SuiteRecords, folder: Path) -> tuple[Path, ...]:
    """Write the report's files into `folder` and return their paths."""
    files = report_files(records)
    for name, text in files.items():
        write_text(folder / name, text)
    return tuple(folder / name for name in files)


def _sections(findings: Findings, records: SuiteRecords) -> Iterator[Section]:
    yield Section("What was measured", _setting(findings, records))
    if findings.arms:
        yield from _measured(findings)
    failures = failure_table(findings)
    nothing = "Every run came to its end." if failures is None else "These runs are in no figure above."
    yield Section("What failed", (nothing,), table=failures)
    yield Section("How to read this", _reading(findings))


def _measured(findings: Findings) -> Iterator[Section]:
    chart = ("accuracy_by_parameters.svg", parameters_chart(findings))
    about = "Bars are 95 % intervals. The dashed steps are the Pareto front: nothing cheaper is as accurate."
    about += " Hollow marks are over a ceiling of the suite." if findings.asked.ceilings else ""
    yield Section("Accuracy and trained parameters", (about,), chart, accuracy_table(findings))
    yield Section(
        f"As good as {findings.asked.reference or 'a reference'}?", _comparison(findings), None, _compare(findings)
    )
    yield Section("Accuracy and time", (), ("accuracy_by_time.svg", time_chart(findings)))
    yield Section("What it costs", _costing(findings), table=cost_table(findings))
    if (learning := learning_chart(findings)) is not None:
        yield Section("Learning curves", ("The first seed of each recipe.",), ("learning_curves.svg", learning))
    if (reliability := reliability_chart(findings)) is not None:
        about = "Right on average where the curve lies on the diagonal; bins of fewer than ten rows are left out."
        yield Section("Can the probabilities be believed?", (about,), ("reliability.svg", reliability))
    if (sure := risk_coverage_chart(findings)) is not None:
        about = (
            "What is right of the test rows that a recipe is surest of, against their share; where a curve ends at the "
            "right, all rows are answered. It promises nothing for new texts: `peftlab calibrate` does, for a run."
        )
        yield Section("What could be answered without people", (about,), ("risk_coverage.svg", sure))
    if (classes := class_table(findings)) is not None:
        yield Section("Classes", ("Mean F1 over seeds.",), table=classes, folded=len(classes.rows) > 12)


def _setting(findings: Findings, records: SuiteRecords) -> tuple[str, ...]:
    done = [run.result for arm in findings.arms for run in arm.runs]
    lines = []
    for rows, synthetic in sorted({(tuple(sorted(r.data.rows.items())), r.data.synthetic) for r in done if r.data}):
        counts = ", ".join(f"{count:,} {split}" for split, count in rows)
        lines.append(f"Rows: {counts}{' (synthetic: made-up text)' if synthetic else ''}.")
    if len({r.data.fingerprint for r in done if r.data}) > 1:
        lines.append("The runs did not all have the same data: see `data.fingerprint` of the records.")
    encoders = sorted({r.encoder.used for r in done if r.encoder.used})
    lines += [f"Encoders: {', '.join(encoders)}."] if encoders else []
    stood_in = sorted({r.encoder.requested or "" for r in done if r.stand_in})
    lines += [f"Stand-ins took the place of: {', '.join(stood_in)}."] if stood_in else []
    machines = sorted({f"{r.device.type} ({r.device.name}, {r.device.threads} threads)" for r in done if r.device})
    lines += [f"Machines: {'; '.join(machines)}."] if machines else []
    seeds = sorted({arm.seeds for arm in findings.arms})
    if seeds:
        number = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        lines.append(f"Recipes: {len(findings.arms)} with {number} seed{'s' if seeds[-1] > 1 else ''} each.")
    if records.tuning is not None:
        trials = records.tuning.get("trials_of_each_recipe")
        lines.append(
            f"Learning rates: {trials} trials on validation for every recipe that has one (`tuning/summary.json`)."
        )
    else:
        lines.append("Learning rates: no equal number of trials is recorded; the recipes' own were used.")
    return tuple(lines)


def _compare(findings: Findings) -> Table | None:
    asked = findings.asked
    return comparison_table(findings) if asked.reference is not None and asked.margin is not None else None


def _comparison(findings: Findings) -> tuple[str, ...]:
    asked = findings.asked
    if asked.reference is None or asked.margin is None:
        return ("Not asked: the suite names no reference and margin, so no recipe is compared with full fine-tuning.",)
    compared = sum(arm.comparison is not None for arm in findings.arms)
    return (
        f"Difference of accuracy to {asked.reference}, paired by test row, against a margin of "
        f"{100 * asked.margin:g} points. Non-inferior: shown not to be worse by the margin, one-sided at 5 %, with "
        f"Holm's correction for {compared} comparisons. Inconclusive is not a draw: the rows do not decide.",
    )


def _costing(findings: Findings) -> tuple[str, ...]:
    text = "Medians over seeds; counts are the largest. A whole run includes loading, validation and reloading."
    if findings.reference is not None:
        text += " Time per token is that of the training loop; runs are not interleaved."
    return (text,)


def _reading(findings: Findings) -> tuple[str, ...]:
    single = any(arm.seeds == 1 for arm in findings.arms)
    kept = all(run.predictions is not None for arm in findings.arms for run in arm.runs)
    lines = [
        "Intervals of accuracy hold test rows and seeds to be random at once (peftlab/evaluation/over_seeds.py); with "
        "3 seeds and 3,000 rows they cover 94 to 96 % in simulation (tests/evaluation/test_over_seeds.py).",
        "A target is met where the whole 95 % interval is at or above it, missed where it is wholly below, else open. "
        "Each recipe is judged by itself: of many, one may pass by luck, which the probability does not count.",
        "The cheapest recipe is the one with the fewest trained parameters, the head included.",
    ]
    if single:
        lines.append("Intervals of recipes with one seed say nothing of the spread between seeds.")
    if not kept:
        lines.append(
            "Of some runs the per-example predictions were not kept: they have no paired tests and no reliability, and "
            "the intervals of several such seeds are the widest that the figures allow."
        )
    lines.append("This report is made from the records beside it by `peftlab report`, and from nothing else.")
    return tuple(lines)


def markdown(title: str, first: str, sections: tuple[Section, ...]) -> str:
    """Return a report as Markdown."""
    parts = [f"# {title}", f"**{first}**"]
    for section in sections:
        parts.append(f"## {section.title}")
        several = len(section.texts) > 1
        parts += ["\n".join(f"- {text}" for text in section.texts)] if several else section.texts
        if section.chart is not None:
            parts.append(f"![{section.title}]({section.chart[0]})")
        if section.table is not None:
            table = _markdown_table(section.table)
            folded = f"<details><summary>{len(section.table.rows)} rows</summary>\n\n{table}\n\n</details>"
            parts.append(folded if section.folded else table)
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rows = [line([cell.text for cell in row]) for row in table.rows]
    return "\n".join([line(list(table.heads)), line(["---"] * len(table.heads)), *rows])
