"""`peftlab export`: a run in a format that others load, proved against the run, or refused."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from peftlab.programs import EXIT_CODES, quiet_libraries, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: export(asked, asked.to))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab export`."""
    from peftlab.recipe.plugins import plugin_names

    formats = ", ".join(name.replace("_", "-") for name in plugin_names("exporters"))
    made = argparse.ArgumentParser(
        prog="peftlab export",
        description="Write a finished run in a format that others load. What was written is loaded from disk,\n"
        "compared with the run on the test split, and refused where it is too far from it; then nothing is left\n"
        "behind. certificate.json and README.md say how far it is.",
        epilog="example: peftlab export RUN --to onnx-int8 --out tickets-int8\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", metavar="RUN", help="a run folder, or the name of one in ./runs")
    made.add_argument("--to", required=True, metavar="FORMAT", help=f"one of: {formats}")
    add_options(made)
    return made


def add_options(made: argparse.ArgumentParser) -> None:
    """Add what every way of exporting takes."""
    made.add_argument("--out", required=True, metavar="FOLDER", help="the export's folder; must not hold files yet")
    made.add_argument("--dtype", metavar="TYPE", help="fp32, bf16 or fp16, as far as the format allows (default: fp32)")
    made.add_argument(
        "--max-drift",
        type=_limit,
        metavar="X",
        help="largest difference of a logit, times the largest logit where that is above 1; inf for any "
        "(default: 1e-5 for fp32 weights, 1e-4 for an fp32 graph, inf for other types)",
    )
    made.add_argument(
        "--max-drop", type=_limit, metavar="Y", help="largest loss of test accuracy; inf for any (default: 0.005)"
    )
    made.add_argument("--push-to-hub", metavar="REPO", help="also upload it to OWNER/NAME, made private if it is new")


def export(asked: argparse.Namespace, to: str) -> int:
    """Export what the command line asks for to the format `to`; prints the folder, and the address on the hub."""
    from peftlab.show import run_folder

    run = run_folder(asked.run)
    quiet_libraries()
    from peftlab.shipping.exporting import MAX_DROP, Ask, export_run

    drop = MAX_DROP if asked.max_drop is None else asked.max_drop
    out = Path(asked.out)
    certificate = export_run(Ask(run, to, out, asked.dtype, asked.max_drift, drop), _say)
    drift, metric = certificate.drift, certificate.metric
    _say(
        f"largest drift of a logit {drift.max:.2g}, {drift.flips} of {drift.rows:,} predictions flipped; test "
        f"{metric.name} {metric.before:.4f} before, {metric.after:.4f} after (exact McNemar p = {metric.p_value:.2g})"
    )
    if asked.push_to_hub:
        from peftlab.shipping.hub import push_to_hub

        _say(f"uploaded to {push_to_hub(out, asked.push_to_hub)}")
    _say(f"how to load it: {out / 'README.md'}; check it anywhere with: peftlab verify {out}")
    print(out)
    return 0


def _limit(text: str) -> float:
    """Return a limit given on the command line; argparse words the mistake."""
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, or inf; found {text!r}")
    return value


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
