"""`peftlab search`: the cheapest rung of a ladder that meets a target, or why there is none within the budget."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.programs import EXIT_CODES, quiet_libraries, run_program

if TYPE_CHECKING:
    from peftlab.ladders.site import Step
    from peftlab.ladders.trials import Do


def main(argv: Sequence[str] | None = None) -> int:
    """Run the search of the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _search(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab search`."""
    made = argparse.ArgumentParser(
        prog="peftlab search",
        description="Climb a ladder of methods from the cheapest to the dearest until the target is met, within the\n"
        "ceilings. Each rung is tuned on validation; the test split is scored once, for the verdict. A search that\n"
        "was killed goes on where it was with the same command. The last line on standard output is the folder of\n"
        "the records; what they say is in SEARCH.md and SEARCH.html there.",
        epilog="examples:\n"
        "  peftlab search banking77\n"
        "  peftlab search recipes/ladders/tickets_zh.toml --json\n"
        "  peftlab search recipes/lora_minilm.toml    (its [budget] says target and ceilings)\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("ladder", metavar="LADDER", help="a ladder file, the name of a shipped one, or a training recipe")
    made.add_argument("--target", type=float, metavar="SHARE", help="accuracy asked for, in place of the ladder's")
    made.add_argument("--minutes", type=float, metavar="N", help="wall time of the search, in place of the ladder's")
    made.add_argument("--threads", type=int, metavar="N", help="CPU threads of each run (default: all cores)")
    made.add_argument("--json", action="store_true", help="print one JSON object with verdict, rung, metric and cost")
    made.add_argument(
        "--records", type=Path, default=Path("benchmarks/searches"), metavar="DIR", help="records go to DIR/<name>"
    )
    made.add_argument(
        "--runs", type=Path, default=Path("runs/searches"), metavar="DIR", help="run folders go to DIR/<name>"
    )
    return made


def _search(asked: argparse.Namespace) -> int:
    from peftlab.suites.execute import execute

    record, folder = search(
        asked.ladder,
        asked.records,
        asked.runs,
        target=asked.target,
        minutes=asked.minutes,
        threads=asked.threads,
        do=execute,
    )
    print(json.dumps(record, ensure_ascii=False, indent=2) if asked.json else folder)
    return 0


def search(
    argument: str,
    records: Path,
    runs: Path,
    *,
    do: Do,
    target: float | None = None,
    minutes: float | None = None,
    threads: int | None = None,
) -> tuple[dict[str, Any], Path]:
    """Search, write records and page, and return the record of the search and the folder of the records.

    What is recorded with the same recipe, data and code is not run again.
    """
    from peftlab.ladders.ladder import load_ladder

    ladder, recipe, text = load_ladder(argument, None if target is None else _share(target))
    if minutes is not None:
        ladder = ladder.model_copy(update={"ceilings": ladder.ceilings.model_copy(update={"minutes": minutes})})
    quiet_libraries()
    from rich.console import Console

    from peftlab.ladders.account import open_account
    from peftlab.ladders.climb import check_rungs, climb
    from peftlab.ladders.site import Site
    from peftlab.ladders.verdict import judge
    from peftlab.reports.climb_page import RECORD, write_climb
    from peftlab.runs.files import write_json, write_text
    from peftlab.suites.schedule import alone_in
    from peftlab.training.signals import stop_on_signals

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    kept, work = (records / ladder.name).resolve(), (runs / ladder.name).resolve()
    key = _key(ladder.model_dump_json(), recipe)
    with alone_in(work), stop_on_signals() as wish:
        account = open_account(work, key, ladder.ceilings.minutes)
        write_text(kept / "ladder.toml", text)
        site = Site(ladder, recipe, kept, work, account, do, wish, console, threads)
        check_rungs(site)
        if (before := _used_up(kept / RECORD, key)) is not None:
            console.print("the minutes of this search are used up; more of them: --minutes N", markup=False)
            return before, kept
        steps = tuple(climb(site))
        if not account.worked and (before := _finished(kept / RECORD, key, steps)) is not None:
            # Every run is that of the record: the same verdict, and no second look at the test rows.
            console.print(before["sentence"], style="bold", markup=False)
            write_climb(kept)
            return before, kept
        record = {**judge(site, steps), "key": key}
        account.write()
    write_json(kept / RECORD, record)
    write_climb(kept)
    console.print(record["sentence"], style="bold", markup=False)
    return record, kept


def _key(ladder: str, recipe: Path) -> str:
    """Return what the time spent belongs to: the ladder as it was asked for, and its recipe."""
    return hashlib.sha256(ladder.encode() + b"\n" + recipe.read_bytes()).hexdigest()


def _finished(path: Path, key: str, steps: Sequence[Step]) -> dict[str, Any] | None:
    """Return the record of the same search where it came to a verdict from these very runs.

    What it had left out counts as not begun now, where no time is left.
    """
    record = _before(path, key)
    if record is None:
        return None
    then = {one["rung"]: one["chosen"] for one in record["rungs"] if one["chosen"] is not None}
    now = {one.rung.name: one.chosen.name for one in steps if one.chosen is not None}
    return record if then == now else None


def _used_up(path: Path, key: str) -> dict[str, Any] | None:
    """Return the record of the same search where its minutes were used up; it would find no more."""
    record = _before(path, key)
    return record if record is not None and record["verdict"] == "out_of_budget" else None


def _before(path: Path, key: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record if record.get("key") == key else None


def _share(target: float) -> float:
    from peftlab.errors import UserError

    if not 0 < target < 1:
        raise UserError(f"--target: expected an accuracy between 0 and 1, found {target:g}")
    return target


if __name__ == "__main__":
    sys.exit(main())
