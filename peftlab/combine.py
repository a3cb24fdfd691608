"""`peftlab combine`: one LoRA adapter out of several runs, as a folder that `predict` reads."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import RunError, UserError
from peftlab.programs import EXIT_CODES, quiet_libraries, run_program

if TYPE_CHECKING:
    from peftlab.recipe.records import Recipe
    from peftlab.runs.model_record import ModelRecord

COMBINED = "combined.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _combine(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab combine`."""
    made = argparse.ArgumentParser(
        prog="peftlab combine",
        description="Sum the LoRA adapters and heads of finished runs on one encoder and the same labels, each times\n"
        "its weight. The folder that it writes is for `peftlab predict`; it has not been scored.",
        epilog="ways:\n"
        "  cat     stacks the adapters: exactly the weighted sum, at the sum of their ranks\n"
        "  svd     the best approximation of that sum at one rank (--rank; else the largest of theirs)\n"
        "  linear  sums the factors: equal ranks only, and close only for adapters that started from the same A\n\n"
        "examples:\n"
        "  peftlab combine runs/seed-0 runs/seed-1 runs/seed-2 --out runs/mean\n"
        "  peftlab combine runs/a runs/b --weights 0.7 0.3 --how svd --rank 8 --out runs/both\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or the name of one in ./runs")
    made.add_argument("--out", required=True, metavar="FOLDER", help="the folder to write; it must not exist yet")
    made.add_argument(
        "--weights", nargs="+", type=float, metavar="W", help="one number for each run (default: their mean)"
    )
    made.add_argument("--how", choices=("cat", "svd", "linear"), default="cat", help="see below (default: cat)")
    made.add_argument("--rank", type=int, metavar="R", help="rank of the result, for svd")
    return made


def _combine(asked: argparse.Namespace) -> int:
    from peftlab.show import run_folder

    folders, out = [run_folder(run) for run in asked.runs], Path(asked.out)
    weights = _weights(asked.weights, len(folders))
    if asked.rank is not None and (asked.how != "svd" or asked.rank < 1):
        raise UserError(f"--rank {asked.rank}: the rank of --how svd, a whole number above 0; {asked.how} has its own")
    if out.exists():
        raise UserError(f"--out {asked.out} exists already; name another folder")
    quiet_libraries()
    rank = combine_runs(folders, weights, asked.how, asked.rank, out)
    shares = ", ".join(f"{weight:g} x {folder}" for weight, folder in zip(weights, folders, strict=True))
    print(f"rank {rank}, by {asked.how}: {shares}", file=sys.stderr)
    print(out)
    return 0


def _weights(given: list[float] | None, runs: int) -> list[float]:
    if runs < 2:
        raise UserError("name two runs or more: one alone has nothing to be combined with")
    if given is None:
        return [1 / runs] * runs
    if len(given) != runs:
        raise UserError(f"--weights has {len(given)} numbers for {runs} runs; give one for each, in their order")
    if not all(map(math.isfinite, given)) or not any(given):
        raise UserError("--weights: expected finite numbers, not all of them 0")
    return given


def combine_runs(folders: Sequence[Path], weights: Sequence[float], how: str, rank: int | None, out: Path) -> int:
    """Write the weighted sum of the LoRA runs in `folders` to the new folder `out`; return its rank.

    Raises RunError where the runs do not belong together: another encoder, other labels, another task, no plain LoRA.
    """
    from peftlab.encoders.combined import combine_lora
    from peftlab.encoders.load import HeadShape, LoadedEncoder, load_classifier
    from peftlab.encoders.saved import save_trained
    from peftlab.encoders.source import find_again
    from peftlab.recipe.resolve import recipe_hash, recipe_text
    from peftlab.runs.environment import git_commit, versions
    from peftlab.runs.files import whole_folder, write_json, write_text
    from peftlab.runs.folder import write_environment
    from peftlab.runs.model_record import RECIPE, TOKENIZER, TRAINED, write_model_record

    record, recipe, own_rank = _belonging_together(folders)
    known, settings = record.encoder, recipe.encoder
    if known is None or settings is None:
        raise AssertionError("LoRA runs have an encoder")
    files = find_again(known.used, known.revision, known.sha256, Path(known.folder))
    full = settings.model_copy(update={"pooling": known.pooling, "load_in": "full", "dtype": "fp32"})

    def bare() -> LoadedEncoder:
        return load_classifier(full, files.folder, HeadShape(len(record.labels), recipe.head.dropout))

    trained = [folder / TRAINED for folder in folders]
    made = combine_lora(bare(), bare(), trained, weights, how, rank or own_rank)  # type: ignore[arg-type] # argparse
    method = recipe.method.config.model_copy(
        update={"r": made.rank, "alpha": float(made.rank), "rslora": False, "init": "default"}
    )
    changed = recipe.model_copy(
        update={"name": out.name, "method": recipe.method.model_copy(update={"config": method})}
    )
    with whole_folder(out) as target:
        save_trained(made.model, target / TRAINED, encoder_name=known.used)
        shutil.copytree(folders[0] / TOKENIZER, target / TOKENIZER)
        write_model_record(target, record)
        write_text(target / RECIPE, recipe_text(changed))
        origin = {"name": out.name, "path": str(recipe.path), "hash": recipe_hash(changed)}
        write_environment(target, {"recipe": origin, "versions": versions(), "git_commit": git_commit()})
        parts = [
            {"run": str(folder.resolve()), "weight": weight} for folder, weight in zip(folders, weights, strict=True)
        ]
        write_json(target / COMBINED, {"how": how, "rank": made.rank, "parts": parts})
    return made.rank


def _belonging_together(folders: Sequence[Path]) -> tuple[ModelRecord, Recipe, int]:
    """Return the first run's record and recipe, and the largest rank; RunError where a run does not fit the first."""
    from peftlab.recipe.plugins import tasks_in
    from peftlab.runs.folder import run_recipe
    from peftlab.runs.model_record import read_model_record

    records = [read_model_record(folder) for folder in folders]
    recipes = [run_recipe(folder) for folder in folders]
    for folder, record, recipe in zip(folders, records, recipes, strict=True):
        if recipe.method.name != "lora":
            raise RunError(f"{folder} was trained by {recipe.method.name!r}; only LoRA adapters can be combined")
        if recipe.task.name not in tasks_in("combine"):
            raise RunError(f"{folder} is a run of the task {recipe.task.name!r}, whose adapters cannot be combined yet")
        if record.labels != records[0].labels:
            other = sorted(set(record.labels) ^ set(records[0].labels))
            how = f"only one of them has {', '.join(map(repr, other[:5]))}" if other else "their order differs"
            raise RunError(f"{folder} and {folders[0]} cannot be combined, since their labels differ: {how}")
        for what, own, first in _compared(record, recipe, records[0], recipes[0]):
            if own != first:
                raise RunError(
                    f"{folder} and {folders[0]} cannot be combined, since their {what} differs: {own} and {first}"
                )
    return records[0], recipes[0], max(getattr(recipe.method.config, "r", 1) for recipe in recipes)


def _compared(
    record: ModelRecord, recipe: Recipe, first: ModelRecord, first_recipe: Recipe
) -> list[tuple[str, object, object]]:
    """Return what must be the same, each with the value of a run and of the first one."""
    if record.encoder is None or first.encoder is None or recipe.encoder is None or first_recipe.encoder is None:
        raise AssertionError("LoRA runs have an encoder")
    own, other = recipe.encoder, first_recipe.encoder
    return [
        ("encoder", record.encoder.sha256[:12], first.encoder.sha256[:12]),
        ("pooling", record.encoder.pooling, first.encoder.pooling),
        ("encoder.load_in", own.load_in, other.load_in),
        ("encoder.dtype", own.stored_as, other.stored_as),
        ("encoder.max_length", own.max_length, other.max_length),
        ("task", recipe.task.name, first_recipe.task.name),
        ("use of several labels a row", record.multi_label, first.multi_label),
        ("use of pairs", recipe.data.pair is not None, first_recipe.data.pair is not None),
    ]


if __name__ == "__main__":
    sys.exit(main())
