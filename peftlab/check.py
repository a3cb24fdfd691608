"""`peftlab check`: everything that can be known before the first step, without training."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftlab.errors import UserError
from peftlab.programs import EXIT_CODES, add_recipe_words, quiet_libraries, run_program

if TYPE_CHECKING:
    from peftlab.recipe.records import Recipe
    from peftlab.training.prepare import Found


def main(argv: Sequence[str] | None = None) -> int:
    """Check the recipe of the command line `argv`; returns the exit code."""
    asked = parser().parse_intermixed_args(argv)
    return run_program(lambda: check_recipe(asked.recipe, asked.overrides, as_json=asked.json))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab check`."""
    made = argparse.ArgumentParser(
        prog="peftlab check",
        description="Find every mistake in a recipe, its data and its encoder, and print the plan: rows, steps,\n"
        "parameters, estimated peak memory, shipped bytes. Trains nothing and writes nothing.",
        epilog="example: peftlab check recipes/lora_minilm.toml method.r=16\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_recipe_words(made)
    made.add_argument("--json", action="store_true", help="print the plan as one JSON object on standard output")
    return made


def check_recipe(name: str | None, overrides: Sequence[str], *, as_json: bool) -> int:
    """Check the recipe of this name or path and print its plan; raises UserErrors with everything that is wrong."""
    from peftlab.recipe.load import read_recipe
    from peftlab.recipe.resolve import resolved
    from peftlab.recipe.shipped import find_recipe

    if name is None:
        raise UserError("name a recipe, as in: peftlab check recipes/lora_minilm.toml")
    recipe = resolved(read_recipe(find_recipe(name), overrides))
    quiet_libraries()
    from rich.console import Console

    from peftlab.training.prepare import find_inputs
    from peftlab.training.tracking import check_trackers

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    check_trackers(recipe.run.trackers)
    found = find_inputs(recipe, report_path=None, say=console.print)
    plan = _plan(recipe, found)
    if as_json:
        print(json.dumps(plan, ensure_ascii=False, indent=2))
    else:
        _show(plan, console)
        if recipe.curate:
            console.print("rows and steps are those before the curators, which only a run and `peftlab curate` ask")
        print(f"{recipe.path}: no mistakes", file=sys.stderr)
    return 0


def _plan(recipe: Recipe, found: Found) -> dict[str, Any]:
    splits = found.splits
    plan: dict[str, Any] = {
        "recipe": recipe.name,
        "rows": {split.name: len(split) for split in (splits.train, splits.validation, splits.test)},
        "labels": len(found.task.labels(splits)),
        "data": splits.source["used"],
        "method": recipe.method.name,
        "encoder": None,
    }
    if recipe.curate:
        plan["curators"] = [choice.name for choice in recipe.curate]
    if found.files is None:
        return plan
    plan["encoder"] = {"requested": found.files.requested, "used": found.files.used, "folder": str(found.files.folder)}
    return plan | _model_plan(recipe, found)


def _model_plan(recipe: Recipe, found: Found) -> dict[str, Any]:
    """Return what is known once the model is built: parameters, bytes, steps, memory."""
    import psutil
    import torch

    from peftlab.training.linear_probe import linear_head
    from peftlab.training.optimizers import make_optimizer, parameter_groups
    from peftlab.training.passes import tokens_of_a_pass
    from peftlab.training.placement import planned_place
    from peftlab.training.prepare import (
        build_model,
        check_budget,
        estimate_peak_bytes,
        hooks_of,
        plan_of,
        shipped_bytes,
    )
    from peftlab.training.recompute import layers_to_recompute

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(found, device=device, seed=recipe.train.seed)
    if recipe.head.init == "probe" or found.method.SOLVER == "linear_probe":
        linear_head(model.module)
    shipped = shipped_bytes(model)
    check_budget(recipe, model.counts.trainable, shipped)
    tokens = found.task.encode(found.tokenizer, found.splits.train, recipe)
    by_gradient = found.method.SOLVER == "gradient"
    known: dict[str, Any] = {
        "pooling": model.pooling,
        "newly_initialised": list(model.anatomy.new_modules),
        "parameters": {
            "trainable": model.counts.trainable,
            "total": model.counts.total,
            "embedding": model.counts.embedding,
            "shipped_bytes": shipped,
        },
        "tokens": {"longest": int(tokens.lengths.max()), "mean": round(float(tokens.lengths.mean()), 1)},
    }
    if by_gradient:
        steps = plan_of(found)
        hooks_of(found, model, steps)
        if recipe.train.gradient_checkpointing:
            layers_to_recompute(model.module)
        make_optimizer(parameter_groups(model.module, model.anatomy, recipe.optimizer, 1e-3), recipe.optimizer, device)
        known["steps"] = {"per_epoch": steps.steps_per_epoch, "total": steps.total_steps, "warmup": steps.warmup_steps}
        objective = found.task.objective(tokens, found.splits, recipe, model.module, device)
        place, together = planned_place(recipe.train, device), objective.rows_together
        known["estimated_peak_bytes"] = estimate_peak_bytes(
            model,
            steps,
            tokens.width,
            resident=psutil.Process().memory_info().rss,
            optimizer_bytes=8 if recipe.optimizer.name == "adamw" else 2,
            most_tokens=tokens_of_a_pass(steps, place, model.module, together=together),
            recompute=recipe.train.gradient_checkpointing,
        )
    return known


def _show(plan: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in plan.items():
        if value is None:
            continue
        table.add_row(name.replace("_", " "), _words(name, value))
    console.print(table)


def _words(name: str, value: Any) -> str:
    if name == "estimated_peak_bytes":
        return f"{value / 1e9:.2f} GB of memory, estimated for the longest texts"
    if name == "parameters":
        total = value["total"]
        return (
            f"{value['trainable']:,} trained of {total:,} ({value['trainable'] / total:.2%}; "
            f"{value['embedding'] / total:.0%} are embeddings); shipped: {value['shipped_bytes'] / 1e6:.2f} MB"
        )
    if isinstance(value, dict):
        return ", ".join(
            f"{key.replace('_', ' ')} {part:,}" if isinstance(part, int) else f"{key} {part}"
            for key, part in value.items()
        )
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main())
