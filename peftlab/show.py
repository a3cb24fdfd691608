"""`peftlab show`: what a run measured, on the screen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from peftlab.errors import RunError
from peftlab.programs import EXIT_CODES, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Print a run's result to standard output; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _show(asked.run, as_json=asked.json))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab show`."""
    made = argparse.ArgumentParser(
        prog="peftlab show",
        description="Print what a run measured: status, test metrics with their intervals, parameters, time,\n"
        "memory and where its files are.",
        epilog=f"example: peftlab show runs/lora_minilm-20260131-101500\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", metavar="RUN", help="a run folder, or the name of one in ./runs")
    made.add_argument("--json", action="store_true", help="print result.json as it is instead of text")
    return made


def run_folder(argument: str) -> Path:
    """Return the folder that `argument` means: a path, or the name of a folder in ./runs; RunError where none is."""
    for folder in (Path(argument), Path("runs") / argument):
        if folder.is_dir():
            return folder
    raise RunError(f"there is no run folder {argument}; a run prints its folder as the last line of its output")


def _show(argument: str, *, as_json: bool) -> int:
    from peftlab.runs.pretraining_result import FILE_NAME as PRETRAINING
    from peftlab.runs.pretraining_result import read_pretraining_result
    from peftlab.runs.result import FILE_NAME, Result, read_result

    folder = run_folder(argument)
    pretraining = (folder / PRETRAINING).is_file()
    result = read_pretraining_result(folder) if pretraining else read_result(folder)
    if as_json:
        print((folder / (PRETRAINING if pretraining else FILE_NAME)).read_text(encoding="utf-8"), end="")
        return 0
    from rich.console import Console

    from peftlab.reports.terminal import show_pretraining, show_run

    shown = show_run(result) if isinstance(result, Result) else show_pretraining(result)
    Console(highlight=False).print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
