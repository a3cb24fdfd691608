"""`peftlab merge`: a run as one plain model, the adapter merged into the weights; `export --to merged`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from peftlab.export import add_options, export
from peftlab.programs import EXIT_CODES, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: export(asked, "merged"))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab merge`."""
    made = argparse.ArgumentParser(
        prog="peftlab merge",
        description="Merge a run's adapter into the encoder's weights and write one plain model, which loads without\n"
        "peftlab. The same as: peftlab export RUN --to merged. From an 8- or 4-bit encoder the adapter is merged\n"
        "into the weights as they are read back, which it was trained against.",
        epilog="example: peftlab merge RUN --out tickets-merged\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", metavar="RUN", help="a run folder, or the name of one in ./runs")
    add_options(made)
    return made


if __name__ == "__main__":
    sys.exit(main())
