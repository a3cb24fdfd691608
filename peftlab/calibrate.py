"""`peftlab calibrate`: which texts a run may answer without people, with a promised accuracy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from peftlab.programs import quiet_libraries, run_program

NOTHING_ROUTED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _calibrate(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab calibrate`."""
    made = argparse.ArgumentParser(
        prog="peftlab calibrate",
        description="Fit, on the run's validation rows, a temperature and the lowest threshold on the probability of\n"
        "the label from which texts may be routed without people: of these, at least --target get the right label,\n"
        "with --confidence. Writes calibration.json into the run, which predict, serve and export obey, and shows it\n"
        "in the run's card. The test rows only check the promise.",
        epilog="example: peftlab calibrate RUN --target 0.97\n\n"
        "Two promises rest on rows that were looked at once more than they account for, a tfidf run's and that of an\n"
        "onnx-int8 export; see docs/calibration.md. For the former name rows that it has not seen with --rows.\n\n"
        "exit codes: 0 some texts are routed, 3 no threshold keeps the promise (then all texts go to people), 1 a\n"
        "failure of peftlab, 2 something you can put right, 130 or 143 interrupted",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", metavar="RUN", help="a run folder, or the name of one in ./runs")
    made.add_argument(
        "--target", type=_share, default=0.95, metavar="A", help="least accuracy on what is routed (default: 0.95)"
    )
    made.add_argument(
        "--confidence",
        type=_share,
        default=0.95,
        metavar="C",
        help="probability with which the promise is kept, over draws of these rows (default: 0.95)",
    )
    made.add_argument(
        "--rows",
        metavar="FILE",
        help="fit on these labelled rows, which the run must not have seen, in the recipe's columns (default: the\n"
        "validation rows, unless the run was trained on them)",
    )
    made.add_argument("--json", action="store_true", help="print calibration.json instead of the run's folder")
    return made


def _calibrate(asked: argparse.Namespace) -> int:
    from peftlab.reports.wording import check_text, promise_text
    from peftlab.show import run_folder

    folder = run_folder(asked.run)
    quiet_libraries()
    from peftlab.shipping.calibrating import calibrate_run

    file = Path(asked.rows) if asked.rows else None
    made = calibrate_run(folder, asked.target, asked.confidence, _say, file)
    _say(promise_text(made))
    check = check_text(made)
    if check is not None:
        _say(check)
    if asked.json:
        print(json.dumps(made.model_dump(mode="json"), ensure_ascii=False))
    else:
        print(folder)
    return 0 if made.threshold is not None else NOTHING_ROUTED


def _share(text: str) -> float:
    """Return a share given on the command line; argparse words the mistake."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        hint = f"; write {value / 100:g} for {value:g} %" if 1 < value < 100 else ""
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, such as 0.95; found {text!r}{hint}")
    return value


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
