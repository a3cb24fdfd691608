"""What a suite file may say: recipes, seeds and overrides, what is asked of them, and how they are tuned."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from peftlab.errors import RecipeError
from peftlab.recipe.expectations import record_of
from peftlab.recipe.records import Positive, Record
from peftlab.recipe.sections import check_table
from peftlab.recipe.source import Finding, Source, read_source
from peftlab.recipe.unknown_keys import Vocabulary


def _plain_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        raise ValueError(f'expected letters, digits, "-" and "_", as the name becomes a folder, found "{text}"')
    return text


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    again = sorted({str(value) for value in values if values.count(value) > 1})
    if again:
        raise ValueError(f"expected each value once, found {', '.join(again)} again")
    return values


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Names = Annotated[tuple[str, ...], AfterValidator(_different)]


class Ceilings(Record):
    """What the answer may cost. A run above a ceiling is run and recorded all the same, and is no answer."""

    trainable_parameters: Positive | None = None
    """Most parameters that may be trained, the head included."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Longest wall time of one run, from its start to its end."""
    memory_mb: Annotated[float, Field(gt=0)] | None = None
    """Largest peak memory in megabytes (10^6 bytes): the process's resident set, or the accelerator's if larger."""


class Tuning(Record):
    """Learning-rate trials before the runs: as many for every method that trains by gradient, `full` included."""

    trials: Positive
    """Trials of each recipe, on learning rates evenly spaced by logarithm around the method's default."""
    seed: Seed = 0
    """`train.seed` of all trials."""
    overrides: tuple[str, ...] = ()
    """Overrides of all trials, over the suite's own: `train.epochs=2` for shorter trials."""
    storage: str | None = None
    """Optuna storage that several machines share: a database's URL or a journal file; unset: a file beside the runs."""


class Suite(Record):
    """Recipes x seeds, run one after another and compared."""

    name: Annotated[str, AfterValidator(_plain_name)]
    """Name of the folder of its records."""
    title: Annotated[str, Field(min_length=1)]
    """Heading of its report."""
    recipes: Names = ()
    """Recipe files, from the suite's own folder, or names of shipped recipes."""
    base: str | None = None
    """Recipe whose method is replaced by each of `methods`, with the method's own default learning rate."""
    methods: Names = ()
    """Methods to put into `base`; each is called by its own name in records."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_different)]
    """Values of `train.seed`; every recipe runs with each of them."""
    overrides: tuple[str, ...] = ()
    """Settings over every recipe's own, as on a command line: `data.train_rows=2000`."""
    per_recipe: dict[str, tuple[str, ...]] = Field(default={})
    """Settings over one recipe's own, by its name."""
    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Test accuracy that is asked for."""
    margin: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    """Difference of accuracy to the reference that does not matter (the non-inferiority margin)."""
    reference: str | None = None
    """Recipe of the suite that the others are compared with, mostly full fine-tuning."""
    ceilings: Ceilings = Ceilings()
    """What the answer may cost."""
    tuning: Tuning | None = None
    """Learning-rate trials before the runs."""


def read_suite(path: Path) -> tuple[Suite, Source, list[Finding]]:
    """Read the suite at `path`: a suite from its sound keys, its source, and the mistakes in the others.

    Raises RecipeError where the file cannot be read or is no TOML. Recipes and overrides are looked at by `load_suite`.
    """
    source = read_source(path, (), kind="suite")
    known = {key: value for key, value in source.values.items() if key in Suite.model_fields}
    unknown = [_unknown(key) for key in source.values if key not in Suite.model_fields]
    vocabulary = Vocabulary(_keys(), {}, frozenset())
    record, findings = check_table((), Suite, known, source, vocabulary)
    if record is None:
        # A required key is missing or wrong; the rest is looked at all the same, so that all mistakes are told at once.
        wrong = {finding.path[0] for finding in findings}
        sound = {key: value for key, value in known.items() if key not in wrong}
        record, _ = check_table((), Suite, {**_PLACEHOLDERS, **sound}, source, vocabulary)
    if not isinstance(record, Suite):
        raise RecipeError(source.mistakes([*unknown, *findings]))
    # A required key that is only misspelt is one mistake, not two.
    meant = {finding.suggestion for finding in unknown}
    return record, source, unknown + [one for one in findings if f"did you mean {one.path[0]}?" not in meant]


_PLACEHOLDERS: dict[str, Any] = {"name": "unnamed", "title": "untitled", "seeds": [0]}


def _keys() -> dict[Any, tuple[str, ...]]:
    nested = {name: record_of(field) for name, field in Suite.model_fields.items()}
    keys: dict[Any, tuple[str, ...]] = {(): tuple(Suite.model_fields)}
    return keys | {(name,): tuple(record.model_fields) for name, record in nested.items() if record is not None}


def _unknown(key: str) -> Finding:
    near = get_close_matches(key, Suite.model_fields, n=1)
    advice = f"did you mean {near[0]}?" if near else f"the keys of a suite are {', '.join(Suite.model_fields)}"
    return Finding((key,), "unknown key", advice)
