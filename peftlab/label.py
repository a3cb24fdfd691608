"""`peftlab label`: choose which rows of a pool to label next, take the labels back, and say what more would bring."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.errors import UserError
from peftlab.labelling.strategies import ABOUT, STRATEGIES
from peftlab.programs import EXIT_CODES, quiet_libraries, run_program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftlab.labelling.desk import Desk
    from peftlab.labelling.rounds import State
    from peftlab.training.prepare import Found

Say = Callable[[str], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_intermixed_args(argv)
    return run_program(lambda: _label(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab label`."""
    about = "\n".join(f"  {name:<17} {ABOUT[name]}" for name in STRATEGIES)
    made = argparse.ArgumentParser(
        prog="peftlab label",
        description="Choose which rows of a pool to label next and write them into a file to fill in; take the file\n"
        "back, train a probe on cached embeddings, and say what more labels would bring.\n\n"
        f"strategies:\n{about}",
        epilog="examples:\n"
        "  peftlab label tickets.csv --recipe recipes/probe_minilm.toml --budget 200\n"
        "  peftlab label tickets.csv --recipe recipes/probe_minilm.toml --take labelling/round-1.csv --budget 200\n"
        "  peftlab label --recipe recipes/probe_minilm.toml --simulate --most 2000\n"
        "      (the recipe's own training rows as the pool: which strategy needs how many labels)\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("pool", nargs="?", metavar="POOL", help="file of unlabelled rows, with the recipe's text column")
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings over the recipe's")
    made.add_argument("--recipe", required=True, help="recipe with [encoder] and the rows that are labelled already")
    made.add_argument("--budget", type=_positive, metavar="N", help="rows to choose for the next round")
    made.add_argument("--strategy", choices=STRATEGIES, default="margin", help="default: margin")
    made.add_argument("--take", metavar="FILE", help="the round's file, filled in")
    made.add_argument("--work", metavar="FOLDER", default="labelling", help="where rounds are kept; default: labelling")
    made.add_argument("--simulate", action="store_true", help="compare strategies on the recipe's training rows")
    made.add_argument("--start", type=_positive, default=200, metavar="N", help="simulation: labels at the start")
    made.add_argument("--most", type=_positive, default=2000, metavar="N", help="simulation: labels at the end")
    made.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="simulation: seeds; default: 0")
    made.add_argument("--json", action="store_true", help="print what was found as one JSON object")
    return made


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text}")
    return value


def _label(asked: argparse.Namespace) -> int:
    from peftlab.recipe.load import read_recipe
    from peftlab.recipe.resolve import resolved
    from peftlab.recipe.shipped import find_recipe

    overrides = [*asked.overrides, *([asked.pool] if asked.pool and "=" in asked.pool else [])]
    pool = None if asked.pool is None or "=" in asked.pool else Path(asked.pool)
    if not asked.simulate and (pool is None or (asked.budget is None and asked.take is None)):
        raise UserError("name the POOL with --budget N, --take FILE or both, or compare strategies with --simulate")
    recipe = resolved(read_recipe(find_recipe(asked.recipe), [*overrides, "data.train_on_validation=false"]))
    quiet_libraries()
    from rich.console import Console

    from peftlab.labelling.desk import refuse_other_rows
    from peftlab.training.prepare import find_inputs

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    found = find_inputs(recipe, report_path=None, say=console.print)
    refuse_other_rows(found)
    if asked.simulate:
        answer = _simulated(asked, found, console.print)
    else:
        answer = _round(asked, found, pool or Path(), console.print)
    if asked.json:
        print(json.dumps(answer, ensure_ascii=False, indent=2))
    return 0


def _round(asked: argparse.Namespace, found: Found, path: Path, say: Say) -> dict[str, Any]:
    """Take a round back, give out the next, or both; return what was found."""
    from peftlab.labelling.desk import read_pool, set_desk
    from peftlab.labelling.rounds import read_state

    work = Path(asked.work)
    rows = read_pool(path, found, say)
    state = read_state(work, rows.sha256)
    if state.open_round is not None and asked.take is None:
        raise UserError(f"{work / state.open_round['file']} is still open; fill it in and name it with --take")
    answer: dict[str, Any] = {}
    desk = set_desk(found, rows, work / "embeddings", _device())
    if asked.take is not None:
        state, answer = _taken(asked, found, desk, state, say)
    if asked.budget is not None:
        answer |= _given_out(asked, found, desk, state, say)
    return answer


def _taken(asked: argparse.Namespace, found: Found, desk: Desk, state: State, say: Say) -> tuple[State, dict[str, Any]]:
    from peftlab.labelling.curve import gain_of_more, gain_sentence
    from peftlab.labelling.desk import difference
    from peftlab.labelling.rounds import TRAIN, take_back, write_state, write_training_file

    names = found.splits.label_names
    texts = {place: desk.rows.whole(place) for place in range(len(desk.rows.texts))}
    before = desk.known(_indices(state, names))
    count, state = take_back(Path(asked.take), state, texts, names)
    work = Path(asked.work)
    write_training_file(work / TRAIN, _training_rows(found, desk, state))
    write_state(work, state)
    after = desk.known(_indices(state, names))
    c = desk.strength(after)
    right = desk.right(after, c)
    gained = difference(desk.right(before, desk.strength(before)), right)
    more = asked.budget or count
    gain = gain_of_more(desk.curve(after, c), more)
    say(
        f"{count:,} labels taken, {len(after.labels):,} in all; validation accuracy {right.mean():.4f}, "
        f"{100 * gained.value:+.1f} points ({100 * gained.low:.1f} to {100 * gained.high:.1f}, n = {gained.n:,})"
    )
    say(gain_sentence(more, gain) + ", if rows are drawn at random and the curve goes on as it did")
    say(f'to train on them: data.train="{work / TRAIN}", with the recipe\'s own validation and test rows')
    return state, {
        "taken": count,
        "labels": len(after.labels),
        "validation_accuracy": float(right.mean()),
        "difference": gained.to_dict(),
        "more": {"labels": more, "gain": gain.to_dict()},
        "train": str(work / TRAIN),
    }


def _given_out(asked: argparse.Namespace, found: Found, desk: Desk, state: State, say: Say) -> dict[str, Any]:
    import numpy as np

    from peftlab.labelling.rounds import Asked, give_out, write_state
    from peftlab.labelling.strategies import choose

    names = found.splits.label_names
    known = desk.known(_indices(state, names))
    open_places = np.setdiff1d(np.arange(len(desk.pool)), sorted(state.labels))
    if not len(open_places):
        raise UserError(f"every row of {asked.pool} is labelled; name a larger pool")
    pool = desk.open_pool(known, open_places, desk.strength(known))
    chosen = choose(asked.strategy, pool, asked.budget, seed=desk.seed + len(state.rounds))
    rows = desk.rows
    given = [
        Asked(
            place=place,
            row=rows.lines[place],
            text=rows.texts[place],
            pair=None if rows.pairs is None else rows.pairs[place],
            suggested=names[int(pool.probabilities[index].argmax())],
            probability=float(pool.probabilities[index].max()),
        )
        for index, place in zip(chosen.tolist(), open_places[chosen].tolist(), strict=True)
    ]
    path, state = give_out(Path(asked.work), state, given, asked.strategy)
    write_state(Path(asked.work), state)
    say(f"{len(given):,} of {len(open_places):,} rows chosen by {asked.strategy}: fill in the column label of {path}")
    return {"round": str(path), "rows": len(given), "strategy": asked.strategy}


def _indices(state: State, names: Sequence[str]) -> dict[int, int]:
    return {place: names.index(label) for place, label in state.labels.items()}


def _training_rows(found: Found, desk: Desk, state: State) -> list[dict[str, str]]:
    data, train, names = found.recipe.data, found.splits.train, found.splits.label_names
    labels = [names[int(label)] for label in train.labels]
    places = sorted(state.labels)
    texts = [*train.texts, *(desk.rows.texts[place] for place in places)]
    labels += [state.labels[place] for place in places]
    rows = [{data.text: text, data.label: label} for text, label in zip(texts, labels, strict=True)]
    if data.pair is not None and train.pairs is not None and desk.rows.pairs is not None:
        own = desk.rows.pairs
        seconds = [*train.pairs, *(own[place] for place in places)]
        return [{**row, data.pair: second} for row, second in zip(rows, seconds, strict=True)]
    return rows


def _simulated(asked: argparse.Namespace, found: Found, say: Say) -> dict[str, Any]:
    """Compare all strategies on validation, the training rows being the pool."""
    import numpy as np

    from peftlab.labelling.desk import PoolRows, set_desk
    from peftlab.labelling.simulate import Plan, labels_needed, simulate

    nothing = PoolRows([1], [found.splits.train.texts[0]], None if found.splits.train.pairs is None else [""], "")
    desk = set_desk(found, nothing, Path(asked.work) / "embeddings", _device())
    most = min(asked.most, len(desk.train.labels))
    plan = Plan(asked.start, asked.budget or asked.start, most, desk.strength(desk.train))
    curves: dict[str, NDArray[np.float64]] = {}
    for strategy in STRATEGIES:
        runs = [
            simulate(strategy, desk.train, [desk.validation], plan, classes=desk.classes, seed=seed)[0].mean(1)
            for seed in asked.seeds
        ]
        curves[strategy] = np.mean(runs, axis=0)
    wanted = float(curves["random"][-1])
    say(
        f"random reaches {wanted:.4f} on {len(desk.validation.labels):,} validation rows with {plan.sizes[-1]:,} labels"
    )
    needed = {strategy: labels_needed(plan.sizes, curve, wanted) for strategy, curve in curves.items()}
    for name, labels in needed.items():
        said = "does not reach it" if labels is None else f"needs {labels:,.0f} ({labels / plan.sizes[-1]:.2f} x)"
        say(f"  {name:<17} {said}")
    return {
        "sizes": plan.sizes,
        "wanted": wanted,
        "needed": needed,
        "curves": {strategy: [round(float(value), 6) for value in curve] for strategy, curve in curves.items()},
    }


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    sys.exit(main())
