"""`peftlab pretrain`, `accelerate launch -m peftlab.pretrain`: an encoder from unlabelled text."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import UserError
from peftlab.programs import EXIT_CODES, add_recipe_words, quiet_libraries, run_program

if TYPE_CHECKING:
    from peftlab.pretraining.job import PretrainJob


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_intermixed_args(argv)
    return run_program(lambda: _pretrain(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab pretrain`."""
    made = argparse.ArgumentParser(
        prog="peftlab pretrain",
        description="Train an encoder to predict masked words of unlabelled text: from random weights, or an existing\n"
        "one (domain- or task-adaptive pretraining), wholly or through a method such as LoRA. The last line on\n"
        "standard output is the run folder; `encoder.name` of a training recipe may name its `encoder/`.",
        epilog="examples:\n"
        "  peftlab pretrain recipes/pretrain_zh.toml 'corpus.files=[\"text/*.txt.xz\"]'\n"
        "  peftlab pretrain recipes/tapt_rbt3.toml --steps 20\n"
        "  accelerate launch -m peftlab.pretrain recipes/pretrain_zh.toml\n"
        "  peftlab pretrain --resume runs/pretrain_zh-20260131-101500\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_recipe_words(made, kind="pretraining recipe", needed=False)
    made.add_argument("--steps", type=int, metavar="N", help="the same as train.max_steps=N")
    made.add_argument("--resume", metavar="RUN", help="continue the pretraining in this folder")
    made.add_argument("--dry-run", action="store_true", help="check recipe, text and encoder, print the plan, stop")
    made.add_argument("--json", action="store_true", help="print pretraining.json on standard output as well")
    return made


def _pretrain(asked: argparse.Namespace) -> int:
    job = _asked_job(asked)
    quiet_libraries()
    if asked.dry_run:
        return _show_plan(job, as_json=asked.json)
    from peftlab.pretraining.job import PretrainJob, run_pretraining
    from peftlab.training.placement import agreed, join_processes

    state, console = join_processes()
    folder = agreed(state, lambda: _choose_folder(job))
    if folder is None:
        return 0
    job = PretrainJob(job.recipe, Path(folder), job.resume)
    try:
        result = run_pretraining(job, console)
        if asked.json and result is not None:
            print(result.model_dump_json(indent=2))
    finally:
        if state.is_main_process and job.folder.is_dir():
            sys.stderr.flush()
            print(job.folder, flush=True)
    return 0


def _show_plan(job: PretrainJob, *, as_json: bool) -> int:
    """Print what the pretraining would do; nothing is packed, so that the number of sequences is not known yet."""
    from peftlab.pretraining.prepare import outline

    plan = outline(job.recipe)
    if as_json:
        print(json.dumps(plan, ensure_ascii=False, indent=2))
    else:
        for name, value in plan.items():
            shown = f"{value:,}" if isinstance(value, int) else value
            print(
                f"{name.replace('_', ' ')}: {', '.join(shown) if isinstance(shown, list) else shown}", file=sys.stderr
            )
        print(f"{job.recipe.path}: no mistakes", file=sys.stderr)
    return 0


def _asked_job(asked: argparse.Namespace) -> PretrainJob:
    from peftlab.pretraining.job import PretrainJob
    from peftlab.recipe.load import read_pretraining
    from peftlab.recipe.resolve import resolved_pretraining
    from peftlab.recipe.shipped import find_recipe
    from peftlab.runs.folder import begun_folder, run_pretrain_recipe

    if asked.resume is not None:
        if asked.recipe is not None or asked.steps is not None:
            raise UserError("--resume continues the run's own recipe; leave the rest out, or start a new run")
        return PretrainJob(run_pretrain_recipe(Path(asked.resume)), Path(asked.resume), resume=True)
    if asked.recipe is None:
        raise UserError("name a pretraining recipe, as in: peftlab pretrain recipes/pretrain_zh.toml")
    overrides = [*asked.overrides, *([f"train.max_steps={asked.steps}"] if asked.steps is not None else [])]
    recipe = resolved_pretraining(read_pretraining(find_recipe(asked.recipe), overrides))
    begun = begun_folder(recipe.run.dir, recipe.train.resume)
    return PretrainJob(recipe, begun or Path(), resume=begun is not None)


def _choose_folder(job: PretrainJob) -> str | None:
    from peftlab.runs.folder import chosen_folder
    from peftlab.runs.pretraining_result import FILE_NAME, read_pretraining_result

    def finished(folder: Path) -> bool:
        return (folder / FILE_NAME).is_file() and read_pretraining_result(folder).status == "ok"

    return chosen_folder(job.recipe.name, job.recipe.run.dir, job.folder if job.resume else None, finished)


if __name__ == "__main__":
    sys.exit(main())
