"""`peftlab schema`: the JSON Schema of recipes, suites or ladders, which editors use to complete and check them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peftlab.programs import EXIT_CODES, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Print the schema, or write it to `--out`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _write(asked.kind, asked.out))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab schema`."""
    made = argparse.ArgumentParser(
        prog="peftlab schema",
        description="Print the JSON Schema of recipes, suites or ladders. An editor that knows TOML schemas completes\n"
        "and checks a file whose first line is '#:schema PATH-TO-THE-SCHEMA'.",
        epilog=f"example: peftlab schema --out recipes/recipe.schema.json\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "kind",
        nargs="?",
        choices=("recipe", "pretraining", "suite", "ladder"),
        default="recipe",
        help="default: recipe",
    )
    made.add_argument("--out", type=Path, metavar="FILE", help="write to this file instead of standard output")
    return made


def _write(kind: str, out: Path | None) -> int:
    from peftlab.runs.files import write_json

    schema = _schema(kind)
    if out is None:
        print(json.dumps(schema, ensure_ascii=False, indent=2))
    else:
        write_json(out, schema)
    return 0


def _schema(kind: str) -> dict[str, Any]:
    if kind == "suite":
        from peftlab.suites.schema import suite_schema

        return suite_schema()
    if kind == "ladder":
        from peftlab.ladders.schema import ladder_schema

        return ladder_schema()
    from peftlab.recipe.schema import pretraining_schema, recipe_schema

    return pretraining_schema() if kind == "pretraining" else recipe_schema()


if __name__ == "__main__":
    sys.exit(main())
