"""`peftlab train`, `accelerate launch -m peftlab.train`: one recipe, trained, proved, scored and written down."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import UserError
from peftlab.programs import EXIT_CODES, add_recipe_words, quiet_libraries, run_program

if TYPE_CHECKING:
    from peftlab.recipe.records import Recipe
    from peftlab.training.job import Job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_intermixed_args(argv)
    return run_program(lambda: _train(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab train`."""
    made = argparse.ArgumentParser(
        prog="peftlab train",
        description="Train, score and save one recipe. The last line on standard output is the run folder;\n"
        "everything else goes to standard error.",
        epilog="examples:\n"
        "  peftlab train recipes/lora_minilm.toml train.seed=1\n"
        "  accelerate launch -m peftlab.train recipes/lora_minilm.toml\n"
        "  ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 -m peftlab.train RECIPE\n"
        "      (two processes on CPUs; other lines that look right start only one)\n"
        "  peftlab train --resume runs/lora_minilm-20260131-101500\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_recipe_words(made, needed=False)
    made.add_argument("--resume", metavar="RUN", help="continue the run in this folder from its last checkpoint")
    made.add_argument(
        "--dry-run", action="store_true", help="check everything and print the plan, like `peftlab check`"
    )
    made.add_argument("--json", action="store_true", help="print result.json on standard output, before the folder")
    return made


def _train(asked: argparse.Namespace) -> int:
    if asked.dry_run:
        from peftlab.check import check_recipe

        return check_recipe(asked.recipe, asked.overrides, as_json=asked.json)
    wanted = _asked_job(asked)
    quiet_libraries()
    from peftlab.training.job import Job, run_job
    from peftlab.training.placement import agreed, join_processes

    state, console = join_processes()
    folder = agreed(state, lambda: _choose_folder(wanted))
    if folder is None:
        return 0
    job = Job(wanted.recipe, Path(folder), wanted.resume)
    if state.num_processes > 1 and not _in_parallel(job.recipe):
        if not state.is_main_process:
            return 0
        console.print(f"the method {job.recipe.method.name!r} runs in one process; the others have nothing to do")
    try:
        result = run_job(job, console)
        if asked.json and result is not None:
            print(result.model_dump_json(indent=2))
    finally:
        if state.is_main_process and job.folder.is_dir():
            sys.stderr.flush()
            print(job.folder, flush=True)
    return 0


def _asked_job(asked: argparse.Namespace) -> Job:
    """Return what the command line asks for; nothing is written yet."""
    from peftlab.recipe.load import read_recipe
    from peftlab.recipe.resolve import resolved
    from peftlab.recipe.shipped import find_recipe
    from peftlab.runs.folder import begun_folder, run_recipe
    from peftlab.training.job import Job

    if asked.resume is not None:
        words = [word for word in (asked.recipe, *asked.overrides) if word is not None]
        if other := [word for word in words if not word.startswith("budget.")]:
            raise UserError(
                f"--resume continues the run's own recipe, of which only the budget may change; leave out "
                f"{' '.join(other)}, or start a new run"
            )
        return Job(run_recipe(Path(asked.resume), words), Path(asked.resume), resume=True)
    if asked.recipe is None:
        raise UserError(
            "name a recipe, as in: peftlab train recipes/lora_minilm.toml; `peftlab list recipes` lists them"
        )
    recipe = resolved(read_recipe(find_recipe(asked.recipe), asked.overrides))
    begun = begun_folder(recipe.run.dir, recipe.train.resume)
    return Job(recipe, begun or Path(), resume=begun is not None)


def _in_parallel(recipe: Recipe) -> bool:
    from peftlab.recipe.plugins import load_plugin

    return bool(load_plugin("methods", recipe.method.name).SOLVER == "gradient")


def _choose_folder(job: Job) -> str | None:
    from peftlab.runs.folder import chosen_folder
    from peftlab.runs.result import FILE_NAME, read_result

    def finished(folder: Path) -> bool:
        return (folder / FILE_NAME).is_file() and read_result(folder).status in ("ok", "validated")

    return chosen_folder(job.recipe.name, job.recipe.run.dir, job.folder if job.resume else None, finished)


if __name__ == "__main__":
    sys.exit(main())
