"""What every method reached on Banking77 beside what its step costs: one table from two committed records.

python benchmarks/method_table.py
Reads results/methods_banking77 (`peftlab bench benchmarks/suites/methods_banking77.toml`) and
results/speed/method_costs_minilm.json (`python benchmarks/speed/method_costs.py`); writes docs/methods_measured.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peftlab.reports.suite_findings import Arm, Findings, find
from peftlab.reports.suite_records import read_suite_records
from peftlab.reports.wording import bytes_text

HERE = Path(__file__).resolve().parent
SUITE = HERE / "results" / "methods_banking77"
COSTS = HERE / "results" / "speed" / "method_costs_minilm.json"
PAGE = HERE.parent / "docs" / "methods_measured.md"


def page() -> str:
    """Return the page in Markdown, a pure function of the two records."""
    findings = find(read_suite_records(SUITE))
    costs: dict[str, Any] = json.loads(COSTS.read_text(encoding="utf-8"))
    return "\n".join([*_opening(findings, costs), *_table(findings, costs["results"]), *_ending(findings, costs)])


def _opening(findings: Findings, costs: dict[str, Any]) -> Iterator[str]:
    reference = findings.reference
    if reference is None:
        raise SystemExit(f"{SUITE} has no run of the suite's reference {findings.asked.reference}")
    rounds = {row["rounds"] for row in costs["results"].values()}
    yield "# Every method, measured"
    yield ""
    yield (
        "Written by `python benchmarks/method_table.py` from [benchmarks/results/methods_banking77]"
        "(../benchmarks/results/methods_banking77/REPORT.md) and `benchmarks/results/speed/method_costs_minilm.json`."
    )
    yield ""
    yield (
        f"Banking77 on MiniLM, 2,400 training rows, 3 epochs, every method at its default rate and size, "
        f"{reference.seeds} seeds, {reference.runs[0].result.metrics.test['accuracy'].n:,} test rows each. Nothing is "
        "tuned: a method behind here may need another rate or more steps. Step and peak memory are those of a step of "
        f"32 x 32 tokens in fp32 on one thread, as ratios to full fine-tuning in the same rounds (medians of "
        f"{min(rounds)}, libraries included in the peak)."
    )
    yield ""


def _table(findings: Findings, costs: dict[str, Any]) -> Iterator[str]:
    yield "| recipe | test accuracy | 95 % interval | minus full, points | trained | of all | shipped | step | peak |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for arm in sorted(findings.arms, key=lambda arm: (-arm.accuracy.value, arm.costs.trainable, arm.name)):
        yield f"| {' | '.join(_cells(arm, costs))} |"


def _cells(arm: Arm, costs: dict[str, Any]) -> Iterator[str]:
    yield arm.name
    yield f"{arm.accuracy.value:.4f}"
    yield f"{arm.accuracy.low:.4f} to {arm.accuracy.high:.4f}"
    behind = None if arm.comparison is None else arm.comparison.difference
    yield "-" if behind is None else f"{100 * behind.value:+.2f} ({100 * behind.low:+.2f} to {100 * behind.high:+.2f})"
    yield f"{arm.costs.trainable:,}"
    yield arm.costs.share_text
    yield bytes_text(arm.costs.shipped_bytes)
    step = costs.get(arm.name)  # of a recipe with settings of its own, none was measured
    yield "-" if step is None else f"{step['wall_ratio']:.2f}"
    yield "-" if step is None else f"{step['peak_ratio']:.2f}"


def _ending(findings: Findings, costs: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield (
        "`minus full` has the 90 % interval of the paired difference over seeds and rows. TF-IDF and the probe are not "
        "trained by steps; recipes with settings of their own were not timed. Machine of the steps: "
        f"{costs['where']['processor']}."
    )
    if findings.missing:
        yield ""
        yield f"Not run yet: {', '.join(f'`{name}`' for name in findings.missing)}."
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")
