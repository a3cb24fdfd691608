"""`peftlab bench`: every recipe of a suite with every seed, recorded, none of them twice."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.errors import UserError
from peftlab.programs import EXIT_CODES, quiet_libraries, run_program

if TYPE_CHECKING:
    from rich.console import Console

    from peftlab.suites.run import Outcome, Places, SuitePlan
    from peftlab.suites.schedule import RunAll


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite of the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _bench(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab bench`."""
    made = argparse.ArgumentParser(
        prog="peftlab bench",
        description="Run a suite: recipes x seeds, each run in a process of its own. Everything is checked before the\n"
        "first run. What is recorded with the same recipe, data and code is not run again, a failed run is tried\n"
        "again, and a suite that was killed goes on where it was. The last line on standard output is the folder of\n"
        "the records.",
        epilog="examples:\n"
        "  peftlab bench benchmarks/suites/smoke.toml --dry-run\n"
        "  peftlab bench benchmarks/suites/smoke.toml --jobs 2\n"
        "  peftlab bench benchmarks/suites/banking77.toml --only 'lora-*'\n"
        "  peftlab bench benchmarks/suites/banking77.toml --ray auto --threads 4\n\n"
        + EXIT_CODES.replace("1 a failure of peftlab", "1 a run failed, or peftlab did"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("suite", metavar="SUITE", type=Path, help="a suite file")
    made.add_argument("--jobs", type=_above_zero, default=1, metavar="N", help="runs at a time on this machine")
    made.add_argument(
        "--threads", type=_above_zero, metavar="N", help="CPU threads of each run (default: the cores, shared by jobs)"
    )
    made.add_argument("--only", metavar="PATTERN", help="only runs whose name fits, such as 'lora-*' or '*-s0'")
    made.add_argument("--dry-run", action="store_true", help="check everything and print the plan; run nothing")
    made.add_argument("--json", action="store_true", help="print one JSON object instead of the folder")
    made.add_argument(
        "--results", type=Path, default=Path("benchmarks/results"), metavar="DIR", help="records go to DIR/<suite name>"
    )
    made.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="run folders go to DIR/<suite name>"
    )
    made.add_argument("--ray", metavar="ADDRESS", help="run on this Ray cluster ('auto': the one of this machine)")
    made.add_argument("--gpus", type=float, default=0, metavar="N", help="GPUs of each run on a Ray cluster")
    return made


def _above_zero(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def _bench(asked: argparse.Namespace) -> int:
    if asked.ray is not None and asked.jobs > 1:
        raise UserError("--jobs is for this machine and --ray for a cluster, which takes as many runs as it has room")
    run_all, jobs = _runner(asked)
    quiet_libraries()
    from rich.console import Console

    from peftlab.suites.run import Places, plan_suite, run_suite

    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def places(suite: str) -> Places:
        return Places((asked.results / suite).resolve(), (asked.runs / suite).resolve())

    plan = plan_suite(asked.suite, places, asked.only)
    kept = places(plan.suite.name)
    if asked.dry_run:
        return _show_plan(plan, kept, console, jobs, as_json=asked.json)
    outcome = run_suite(plan, kept, run_all, jobs, console)
    for name in outcome.failed:
        console.print(f"{name} {outcome.results[name].status}: {_reason(outcome, name)}", style="red", markup=False)
    reported = _report(kept.records)
    print(json.dumps(_summary(plan, kept, outcome), ensure_ascii=False, indent=2) if asked.json else kept.records)
    return 1 if outcome.failed else reported


def _runner(asked: argparse.Namespace) -> tuple[RunAll, int]:
    """Return what does the runs, and how many of them it does at a time."""
    if asked.ray is not None:
        from peftlab.suites.on_ray import on_ray

        return on_ray(asked.ray, asked.threads or 1, asked.gpus), 1
    from peftlab.suites.schedule import on_this_machine
    from peftlab.training.placement import usable_cores

    shared = max(1, usable_cores() // asked.jobs) if asked.jobs > 1 else None
    return on_this_machine(asked.jobs, asked.threads or shared), asked.jobs


def _report(records: Path) -> int:
    """Write the report of the records, as `peftlab report` does; return its exit code."""
    from peftlab import report

    with redirect_stdout(sys.stderr):
        return report.main([str(records)])


def _reason(outcome: Outcome, name: str) -> str:
    return (outcome.results[name].reason or "").splitlines()[0]


def _summary(plan: SuitePlan, places: Places, outcome: Outcome) -> dict[str, Any]:
    from peftlab.suites.ceilings import above

    runs = []
    for name, result in outcome.results.items():
        accuracy = result.metrics.test.get("accuracy")
        runs.append(
            {
                "name": name,
                "status": result.status,
                "recorded_before": name in outcome.before,
                "accuracy": accuracy.value if accuracy is not None else None,
                "seconds": round(result.seconds.total, 2),
                "above": above(result, plan.suite.ceilings) if result.status == "ok" else [],
                "reason": result.reason,
            }
        )
    return {"suite": plan.suite.name, "records": str(places.records), "failed": len(outcome.failed), "runs": runs}


def _show_plan(plan: SuitePlan, places: Places, console: Console, jobs: int, *, as_json: bool) -> int:
    """Print the runs and trials, those that are recorded already among them, and how long the rest takes."""
    from peftlab.suites.board import clock, remaining_seconds
    from peftlab.suites.records import recorded, usual_seconds

    trials = [trial.run for found in plan.trials.values() for trial in found]
    usual = usual_seconds(places.records, plan.runs) | {}
    lines: list[dict[str, Any]] = []
    for run in [*trials, *plan.runs]:
        trial = run in trials
        done = recorded(places.tuning if trial else places.records, run) is not None
        waits = not trial and plan.awaits_trials(run.arm, places)
        state = "waits for its trials" if waits else "recorded" if done else "to run"
        lines.append(
            {
                "name": run.name,
                "kind": "trial" if trial else "run",
                "state": state,
                "learning_rate": None if waits else run.recipe.train.learning_rate,
                "trainable_parameters": plan.parameters.get(run.arm),
                "usual_seconds": usual.get(run.arm),
            }
        )
    names = {line["name"] for line in lines if line["state"] != "recorded"}
    left = [run for run in [*trials, *plan.runs] if run.name in names]
    seconds = remaining_seconds(left, usual, {}, jobs)
    if as_json:
        print(json.dumps({"suite": plan.suite.name, "estimated_seconds": seconds, "runs": lines}, indent=2))
        return 0
    from rich.table import Table

    table = Table(*(name.replace("_", " ") for name in lines[0]), title=plan.suite.title, title_justify="left")
    for line in lines:
        table.add_row(*(_cell(name, value) for name, value in line.items()))
    console.print(table)
    how_long = f"about {clock(seconds)}" if seconds is not None else "no run of it is recorded, so no estimate"
    console.print(f"{len(left)} of {len(lines)} to do, {how_long}; records go to {places.records}")
    return 0


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if name == "trainable_parameters" else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
