"""What a ladder file may say: a recipe, a target, ceilings, and rungs in the order in which they are climbed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from peftlab.errors import RecipeError, UserError
from peftlab.recipe.load import read_recipe
from peftlab.recipe.records import Positive, Record
from peftlab.recipe.resolve import resolved
from peftlab.recipe.sections import check_table
from peftlab.recipe.shipped import find_recipe, recipe_folders
from peftlab.recipe.source import Finding, read_source
from peftlab.recipe.unknown_keys import Vocabulary

DEFAULT = "default"
"""Name of the shipped ladder whose rungs are climbed where a ladder, or a recipe, names none."""


def _plain_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        raise ValueError(f'expected letters, digits, "-" and "_", as the name becomes a folder, found "{text}"')
    return text


Name = Annotated[str, AfterValidator(_plain_name)]
AboveZero = Annotated[float, Field(gt=0)]


class LadderCeilings(Record):
    """What the answer, and the search for it, may cost."""

    trainable_parameters: Positive | None = None
    """Most parameters that may be trained, the head included."""
    shipped_mb: AboveZero | None = None
    """Most megabytes (10^6 bytes) that the trained part may take on disk."""
    peak_memory_gb: AboveZero | None = None
    """Largest peak memory of a run in gigabytes (10^9 bytes)."""
    latency_ms: AboveZero | None = None
    """Longest median time of one text."""
    minutes: AboveZero | None = None
    """Longest wall time of the whole search, trials and verdict included, over all its sittings."""
    labels: Positive | None = None
    """Most labelled training rows that may be used."""


class Rung(Record):
    """One step of the ladder: the ladder's recipe with these changes."""

    name: Name
    """Name of the rung in records."""
    about: str = ""
    """What the rung does, in a few words."""
    method: str | None = None
    """Method put into the recipe, with its own default learning rate; unset: the recipe's own method."""
    overrides: tuple[str, ...] = ()
    """Settings over the recipe's, as on a command line."""
    trials: Positive | None = None
    """Learning-rate trials of a method that trains by gradient; 1: only the rate that the recipe says. Unset: as the
    ladder says."""
    teachers: tuple[str, ...] = ()
    """Earlier rungs whose chosen runs teach this one (`[distill]`); those that were not climbed are left out."""
    pretraining: tuple[str, ...] | None = None
    """Settings, as on the command line of `peftlab pretrain`, by which the encoder first reads the training texts
    without their labels; the rung's runs take the encoder that comes of it, which then has to be shipped too."""
    next_encoder: bool = False
    """Take the next dearer encoder of the same language (`peftlab plan`) in place of the recipe's."""
    waits_for: str | None = None
    """What this installation lacks for the rung: it is shown and not climbed."""


class Ladder(Record):
    """A target, what may be spent on it, and the rungs in order of cost."""

    name: Name
    """Name of the folder of its records."""
    title: Annotated[str, Field(min_length=1)]
    """Heading of its page."""
    recipe: str | None = None
    """Recipe file, from the ladder's own folder, or name of a shipped recipe: data, task and encoder of all rungs."""
    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Accuracy that is asked for."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """`train.seed` of all runs."""
    trials: Positive = 3
    """Learning-rate trials of each rung that trains by gradient, as far as its share of the minutes allows. First comes
    the rate that the recipe states, for rungs of the recipe's method, and the method's default for others."""
    overrides: tuple[str, ...] = ()
    """Settings of all rungs over the recipe's own."""
    ceilings: LadderCeilings = LadderCeilings()
    """What may be spent."""
    rungs: tuple[Rung, ...] = ()
    """The rungs from the cheapest to the dearest; none: those of the shipped ladder `default`."""


def load_ladder(argument: str, target: float | None = None) -> tuple[Ladder, Path, str]:
    """Return the ladder that `argument` means, the path of its recipe, and the text that the ladder was made from.

    `argument`: a ladder file, the name of a shipped ladder, or a training recipe, which gets the rungs of the default
    ladder and its `[budget]` as ceilings. `target` takes the place of theirs. Raises RecipeError with every mistake, or
    UserError where no target is asked.
    """
    path = _find(argument)
    if _is_recipe(path):
        return _from_recipe(path, target)
    ladder = read_ladder(path)
    ladder = ladder if target is None else ladder.model_copy(update={"target": target})
    if not ladder.rungs:
        ladder = ladder.model_copy(update={"rungs": default_rungs()})
    if ladder.recipe is None or ladder.target is None:
        missing = "recipe" if ladder.recipe is None else "target"
        raise UserError(f"{path}: the ladder has no {missing}; `recipe` names a training recipe, `target` an accuracy")
    beside = path.parent / ladder.recipe
    recipe = beside if ladder.recipe.endswith(".toml") and beside.is_file() else find_recipe(ladder.recipe)
    return ladder, recipe, path.read_text(encoding="utf-8-sig")


def read_ladder(path: Path) -> Ladder:
    """Read the ladder at `path`; RecipeError with every mistake in it."""
    source = read_source(path, (), kind="ladder")
    known = {key: value for key, value in source.values.items() if key in Ladder.model_fields}
    findings = [_unknown(key) for key in source.values if key not in Ladder.model_fields]
    record, more = check_table((), Ladder, known, source, _vocabulary())
    findings += more
    if isinstance(record, Ladder):
        findings += _in_rungs(record)
    if not isinstance(record, Ladder) or findings:
        raise RecipeError(source.mistakes(dict.fromkeys(findings)))
    return record


def default_rungs() -> tuple[Rung, ...]:
    """Return the rungs of the shipped ladder `default`."""
    return read_ladder(_find(DEFAULT)).rungs


def ladder_paths() -> dict[str, Path]:
    """Return the shipped ladders, and those of ./recipes/ladders, by name."""
    found: dict[str, Path] = {}
    for folder in recipe_folders():
        for path in sorted((folder / "ladders").glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def _find(argument: str) -> Path:
    path = Path(argument)
    if path.suffix == ".toml" or len(path.parts) != 1 or path.is_file():
        return path
    return ladder_paths().get(argument) or find_recipe(argument)


def _is_recipe(path: Path) -> bool:
    try:
        return "task" in tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False


def _from_recipe(path: Path, target: float | None) -> tuple[Ladder, Path, str]:
    recipe = resolved(read_recipe(path))
    target = recipe.evaluation.target if target is None else target
    if target is None:
        raise UserError(f"{path}: a search needs a target; say --target 0.95, or add [budget] with target = 0.95")
    known = recipe.budget.model_dump()
    ceilings = LadderCeilings(**{key: value for key, value in known.items() if key in LadderCeilings.model_fields})
    ladder = Ladder(
        name=_plain_name(path.stem),
        title=f"Climbing from {path.stem}",
        recipe=str(path),
        target=target,
        seed=recipe.train.seed,
        ceilings=ceilings,
        rungs=default_rungs(),
    )
    return ladder, path, path.read_text(encoding="utf-8-sig")


def _in_rungs(ladder: Ladder) -> list[Finding]:
    from peftlab.recipe.plugins import plugin_names

    findings, before = [], list[str]()
    methods = plugin_names("methods")
    for place, rung in enumerate(ladder.rungs):
        here = ("rungs", place)
        if rung.name in before:
            findings.append(Finding((*here, "name"), f"there is a rung named {rung.name} already"))
        if rung.method is not None and rung.method not in methods:
            near = get_close_matches(rung.method, methods, n=1)
            advice = f'did you mean "{near[0]}"?' if near else None
            findings.append(Finding((*here, "method"), f'there is no method "{rung.method}"', advice))
        findings += [
            Finding((*here, "teachers"), f'"{name}" is no earlier rung; they are {", ".join(before) or "none"}')
            for name in rung.teachers
            if name not in before
        ]
        before.append(rung.name)
    return findings


def _vocabulary() -> Vocabulary:
    keys: dict[Any, tuple[str, ...]] = {(): tuple(Ladder.model_fields)}
    keys |= {("ceilings",): tuple(LadderCeilings.model_fields), ("rungs",): tuple(Rung.model_fields)}
    return Vocabulary(keys, {}, frozenset())


def _unknown(key: str) -> Finding:
    near = get_close_matches(key, Ladder.model_fields, n=1)
    advice = f"did you mean {near[0]}?" if near else f"the keys of a ladder are {', '.join(Ladder.model_fields)}"
    return Finding((key,), "unknown key", advice)


def settings_of(ladder: Ladder, rung: Rung, more: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the overrides of every run of `rung`, the ceilings among them, `more` last.

    No test row is seen: the verdict is taken on the chosen run, once.
    """
    ceilings = ladder.ceilings
    asked = {key: getattr(ceilings, key) for key in ("trainable_parameters", "shipped_mb", "peak_memory_gb")}
    asked["latency_ms"] = ceilings.latency_ms
    own = (f'method={{name="{rung.method}"}}', "train.learning_rate=auto") if rung.method is not None else ()
    return (
        *ladder.overrides,
        *own,
        *rung.overrides,
        *(f"budget.{key}={value!r}" for key, value in asked.items() if value is not None),
        *((f"data.train_rows={ceilings.labels}",) if ceilings.labels is not None else ()),
        "data.train_on_validation=false",
        "evaluation.score_test=false",
        *more,
    )
