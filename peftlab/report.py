"""`peftlab report`: the records of a suite as a report for people, in Markdown and HTML."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from peftlab.programs import EXIT_CODES, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report and print its answer; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _report(Path(asked.results), asked.out, as_json=asked.json))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab report`."""
    made = argparse.ArgumentParser(
        prog="peftlab report",
        description="Write REPORT.md, REPORT.html (one file, works offline) and their figures (SVG) from the records\n"
        "of a suite. The first sentence says which recipe is the cheapest that meets the target, and how sure that is.",
        epilog=f"example: peftlab report benchmarks/results/banking77_recipes\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("results", metavar="RESULTS", help="a folder of records, as `peftlab bench` writes it")
    made.add_argument("--out", metavar="FOLDER", help="where the report goes (default: beside the records)")
    made.add_argument("--json", action="store_true", help="print an object with the answer, the verdicts and the files")
    return made


def _report(results: Path, out: str | None, *, as_json: bool) -> int:
    from peftlab.reports.suite_findings import answer, find
    from peftlab.reports.suite_records import read_suite_records
    from peftlab.reports.suite_report import write_report

    records = read_suite_records(results)
    written = [str(path) for path in write_report(records, Path(out) if out is not None else results)]
    findings = find(records)
    if not as_json:
        print(answer(findings), file=sys.stderr)
        print("\n".join(written))
        return 0
    recipes = {
        arm.name: {
            "accuracy": arm.accuracy.to_dict(),
            "seeds": arm.seeds,
            "trainable": arm.costs.trainable,
            "target": arm.target,
            "chance_of_target": arm.chance,
            "over_ceilings": list(arm.over),
            "compared_with_reference": arm.comparison.words if arm.comparison is not None else None,
        }
        for arm in findings.arms
    }
    not_done = {run.name: run.result.status for run in findings.failed} | dict.fromkeys(findings.missing, "no record")
    values = {"answer": answer(findings), "recipes": recipes, "not_done": not_done, "files": written}
    print(json.dumps(values, ensure_ascii=False, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
