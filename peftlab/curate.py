"""`peftlab curate`: the curators of a recipe alone, on its training rows, with files for a person to review."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from peftlab.errors import UserError
from peftlab.programs import EXIT_CODES, add_recipe_words, quiet_libraries, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_intermixed_args(argv)
    return run_program(lambda: _curate(asked.recipe, asked.overrides, asked.out, as_json=asked.json))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab curate`."""
    made = argparse.ArgumentParser(
        prog="peftlab curate",
        description="Run the curators of a recipe on its training rows, without training: say what they would change,\n"
        "and write it down with a review file (CSV and HTML) to correct. Name the corrected CSV in the recipe as\n"
        "review. Validation and test rows are never looked at.",
        epilog="example: peftlab curate recipes/tfidf_curated.toml --out review\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_recipe_words(made)
    made.add_argument("--out", metavar="FOLDER", help="where to write; default: runs/<recipe>-curation-<time>")
    made.add_argument("--json", action="store_true", help="print curation.json on standard output, before the folder")
    return made


def _curate(name: str, overrides: Sequence[str], out: str | None, *, as_json: bool) -> int:
    from peftlab.recipe.load import read_recipe
    from peftlab.recipe.resolve import resolved
    from peftlab.recipe.shipped import find_recipe
    from peftlab.runs.folder import new_run_folder

    recipe = resolved(read_recipe(find_recipe(name), overrides))
    if not recipe.curate:
        raise UserError(f'{recipe.path}: names no curator; add [[curate]] with name, such as name = "label_issues"')
    folder = new_run_folder(f"{recipe.name}-curation", out)
    quiet_libraries()
    import torch
    from rich.console import Console

    from peftlab.curation.run import RECORD
    from peftlab.training.curate import curated
    from peftlab.training.prepare import find_inputs

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    found = find_inputs(recipe, report_path=None, say=console.print)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    curated(found, folder, device=device, say=console.print, write=True)
    for path in sorted(folder.glob("review-*.html")):
        console.print(f"review: open {path}, or edit {path.with_suffix('.csv').name} beside it")
    if as_json:
        print(json.dumps(json.loads(Path(folder / RECORD).read_text(encoding="utf-8")), ensure_ascii=False, indent=2))
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
