"""`peftlab plan`: which encoders there are to climb to, from the cheapest step to the dearest; downloads nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peftlab.encoders.families import (
    TOKENS,
    Family,
    by_cost,
    known_family,
    next_dearer,
    parameters_of,
    step_cost,
)
from peftlab.encoders.shape import EncoderShape, shape_of
from peftlab.errors import EncoderError, UserError
from peftlab.programs import EXIT_CODES, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _plan(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab plan`."""
    made = argparse.ArgumentParser(
        prog="peftlab plan",
        description="List encoders by what a training step costs on them, relative to BERT base, computed from their\n"
        "published sizes. Nothing is downloaded, and nothing is said of how good they are.",
        epilog="examples:\n  peftlab plan --language zh\n  peftlab plan --encoder hfl/rbt3 --tokens 128\n\n"
        + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--language", choices=("zh", "en"), help="encoders of this language and multilingual ones")
    made.add_argument("--encoder", metavar="NAME", help="say which encoder is the next dearer one: a name, or a folder")
    made.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help=f"tokens of a text (default: {TOKENS})")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def _plan(asked: argparse.Namespace) -> int:
    if asked.tokens < 1:
        raise UserError(f"--tokens: expected a whole number above 0, found {asked.tokens}")
    families = by_cost(asked.language, asked.tokens)
    following = None
    if asked.encoder is not None:
        shape, language = shape_named(asked.encoder)
        if asked.language is None and language is not None:
            families = by_cost("zh" if language == "zh" else "en", asked.tokens)
        following = next_dearer(shape, families, asked.tokens)
    lines = [_line(one, asked.tokens) for one in families]
    if asked.json:
        print(json.dumps({"encoders": lines, "next": following.name if following is not None else None}, indent=2))
        return 0
    _show(lines)
    if asked.encoder is not None:
        dearer = f"{following.name}" if following is not None else "none of these"
        print(f"the next dearer encoder after {asked.encoder}: {dearer}")
    return 0


def shape_named(name: str) -> tuple[EncoderShape, str | None]:
    """Return the sizes of an encoder by its name or folder, and its language where the table knows it.

    Raises EncoderError where neither the table nor a local configuration has them.
    """
    known = known_family(name)
    if known is not None:
        return known.shape, known.language
    from transformers import AutoConfig

    from peftlab.encoders.bundled import BUNDLED

    bundled = BUNDLED.get(name.removeprefix("bundled:")) if name.startswith("bundled:") else None
    folder = bundled.path() if bundled is not None else Path(name)
    if folder is None or not (folder / "config.json").is_file():
        names = ", ".join(one.name for one in by_cost())
        raise EncoderError(f"--encoder {name!r} is no folder with a config.json and not in the table of {names}")
    return shape_of(AutoConfig.from_pretrained(str(folder))), None


def _line(family: Family, tokens: int) -> dict[str, Any]:
    return {
        "encoder": family.name,
        "language": family.language,
        "layers": family.layers,
        "width": family.hidden,
        "parameters": parameters_of(family.shape),
        "step_cost": round(step_cost(family.shape, tokens), 4),
        "source": family.source,
    }


def _show(lines: Sequence[dict[str, Any]]) -> None:
    heads = ("encoder", "language", "layers", "width", "parameters", "step cost", "source")
    rows = [heads, *(tuple(_text(key, value) for key, value in line.items()) for line in lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    for row in rows:
        cells = [
            cell.rjust(width) if 2 <= place <= 5 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _text(key: str, value: Any) -> str:
    return f"{value:,}" if key == "parameters" else f"{value:.3f}" if key == "step_cost" else str(value)


if __name__ == "__main__":
    sys.exit(main())
