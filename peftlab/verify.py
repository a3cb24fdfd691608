"""`peftlab verify`: whether an export is what its certificate says, checked on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from peftlab.errors import RunError
from peftlab.programs import quiet_libraries, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _verify(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab verify`."""
    made = argparse.ArgumentParser(
        prog="peftlab verify",
        description="Check an export: the hash of every file, then its logits on reference rows that lie in it\n"
        "(made-up tokens, so neither run nor data is needed), then, with --run, drift and accuracy on the run's\n"
        "test split.",
        epilog="example: peftlab verify tickets-int8 --json\n\n"
        "exit codes: 0 it verifies, 1 it does not, 2 there is nothing to verify, or a package is missing",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("export", metavar="EXPORT", help="the folder of an export")
    made.add_argument("--run", metavar="RUN", help="also compare it with the run that it was made of, on its test rows")
    made.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return made


def _verify(asked: argparse.Namespace) -> int:
    from peftlab.show import run_folder

    folder = Path(asked.export)
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}")
    run = run_folder(asked.run) if asked.run else None
    quiet_libraries()
    from peftlab.shipping.verifying import verify_export

    verdict = verify_export(folder, run)
    print(json.dumps(asdict(verdict), ensure_ascii=False) if asked.json else verdict.sentence)
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
