"""From a suite file to its arms: each recipe read with its overrides, and every mistake with its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from peftlab.errors import Mistake, RecipeError
from peftlab.recipe.expectations import as_toml
from peftlab.recipe.load import read_recipe
from peftlab.recipe.overrides import parse_override
from peftlab.recipe.plugins import plugin_names
from peftlab.recipe.records import Recipe
from peftlab.recipe.resolve import resolved
from peftlab.recipe.shipped import find_recipe, recipe_paths
from peftlab.recipe.source import Finding, Source
from peftlab.recipe.toml_places import KeyPath
from peftlab.suites.suite import Suite, read_suite

_TAKEN = {
    "train.seed": "seeds says it for all recipes",
    "run.dir": "peftlab bench chooses the folders of its runs",
    "run.recipe": "records are named after the recipe",
    "train.resume": "peftlab bench continues its runs by itself",
    "evaluation.score_test": "trials put the test rows aside, runs score them",
}


Setting = tuple[str, KeyPath]
"""An override and its place in the suite file."""


@dataclass(frozen=True)
class Arm:
    """One recipe of a suite under the name it has in records; `settings` are overrides, each with its place."""

    name: str
    path: Path
    settings: tuple[Setting, ...]

    def overrides(self, seed: int, *more: str) -> tuple[str, ...]:
        """Return the overrides of one run, those of `more` last."""
        return (*(text for text, _ in self.settings), f"train.seed={seed}", f"run.recipe={self.name}", *more)

    def recipe(self, seed: int, *more: str) -> Recipe:
        """Return the resolved recipe of one run; RecipeError where it has mistakes."""
        return resolved(read_recipe(self.path, self.overrides(seed, *more)))


def load_suite(path: Path) -> tuple[Suite, tuple[Arm, ...]]:
    """Read the suite at `path` and each of its recipes with each seed; RecipeError with every mistake in them."""
    suite, source, findings = read_suite(path)
    refused = list(_reserved(suite))
    arms, in_names = _arms(suite, source, {finding.path for finding in refused})
    findings += [*refused, *in_names, *_names(suite, arms, source)]
    elsewhere: list[Mistake] = []
    for arm in arms:
        found, outside = _mistakes(arm, suite)
        findings += found
        elsewhere += outside
    if mistakes := [*source.mistakes(dict.fromkeys(findings)), *dict.fromkeys(elsewhere)]:
        raise RecipeError(mistakes)
    return suite, tuple(arms)


def _arms(suite: Suite, source: Source, refused: Set[KeyPath]) -> tuple[list[Arm], list[Finding]]:
    """Return the arms whose recipe files exist, without the overrides `refused`, and mistakes in the names."""
    arms: list[Arm] = []
    findings: list[Finding] = []
    shared = _placed(("overrides",), suite.overrides)
    wanted: list[tuple[str | None, Path, KeyPath, tuple[Setting, ...]]] = []
    for place, text in enumerate(suite.recipes):
        wanted.append((None, _recipe_path(text, source.path), ("recipes", place), ()))
    for place, method in enumerate(suite.methods):
        here: KeyPath = ("methods", place)
        if method not in plugin_names("methods"):
            findings.append(_no_method(method, here))
        elif suite.base is not None:
            own: tuple[Setting, ...] = ((f'method={{name="{method}"}}', here), ("train.learning_rate=auto", here))
            wanted.append((method, _recipe_path(suite.base, source.path), ("base",), own))
    for name, file, here, own in wanted:
        if not file.is_file():
            findings.append(_no_recipe(file, here))
            continue
        arm = name or file.stem
        if any(other.name == arm for other in arms):
            findings.append(Finding(here, f"there is a recipe named {arm} already", "give the file another name"))
            continue
        per_recipe = _placed(("per_recipe", arm), suite.per_recipe.get(arm, ()))
        sound = tuple(setting for setting in (*shared, *per_recipe) if setting[1] not in refused)
        arms.append(Arm(arm, file, (*own, *sound)))
    return arms, findings


def _placed(path: KeyPath, texts: Iterable[str]) -> tuple[Setting, ...]:
    return tuple((text, (*path, place)) for place, text in enumerate(texts))


def _recipe_path(text: str, suite_path: Path) -> Path:
    beside = suite_path.parent / text
    return beside if text.endswith(".toml") and beside.is_file() else find_recipe(text)


def _no_method(method: str, here: KeyPath) -> Finding:
    known = plugin_names("methods")
    near = get_close_matches(method, known, n=1)
    advice = f"did you mean {as_toml(near[0])}?" if near else None
    return Finding(here, f"expected one of {', '.join(map(as_toml, known))}, found {as_toml(method)}", advice)


def _no_recipe(path: Path, here: KeyPath) -> Finding:
    near = get_close_matches(path.stem, recipe_paths(), n=1)
    return Finding(here, f"there is no recipe {path}", f"did you mean {near[0]}?" if near else None)


def _names(suite: Suite, arms: list[Arm], source: Source) -> Iterator[Finding]:
    given = source.values
    if not {"recipes", "base", "methods"} & given.keys():
        yield Finding(("recipes",), "names no recipes; expected recipes, or base and methods")
    if suite.methods and suite.base is None and "base" not in given:
        yield Finding(("methods",), "needs base, the recipe that the methods are put into", 'add base = "lora_minilm"')
    if suite.base is not None and "methods" not in given:
        yield Finding(("base",), "needs methods, which are put into it", 'add methods = ["lora", "full"]')
    # Names that a mistake above has taken away are not missed here as well.
    known = {arm.name for arm in arms} | set(suite.methods) | {Path(text).stem for text in suite.recipes}
    if suite.reference is not None and suite.reference not in known:
        yield _no_arm(("reference",), suite.reference, known)
    for name in suite.per_recipe:
        if name not in known:
            yield _no_arm(("per_recipe", name), name, known)


def _no_arm(here: KeyPath, name: str, known: Iterable[str]) -> Finding:
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    expected = f"expected a recipe of this suite, one of {', '.join(names)}, found {name}"
    return Finding(here, expected, f"did you mean {near[0]}?" if near else None)


def _reserved(suite: Suite) -> Iterator[Finding]:
    """Refuse overrides that have no form, and those of settings that the suite itself decides."""
    lists: list[tuple[KeyPath, tuple[str, ...]]] = [(("overrides",), suite.overrides)]
    lists += [(("per_recipe", name), texts) for name, texts in suite.per_recipe.items()]
    taken = dict(_TAKEN)
    if suite.tuning is not None:
        lists.append((("tuning", "overrides"), suite.tuning.overrides))
        taken["train.learning_rate"] = "[tuning] chooses it on validation"
    for path, texts in lists:
        for place, text in enumerate(texts):
            try:
                key = ".".join(parse_override(text).path)
            except ValueError as error:
                yield Finding((*path, place), f"'{text}': {error}")
                continue
            if key in taken:
                yield Finding((*path, place), f"'{text}': {taken[key]}", "remove it")


def _sound(texts: Iterable[str]) -> bool:
    return not any("=" not in text for text in texts)


def _mistakes(arm: Arm, suite: Suite) -> tuple[list[Finding], list[Mistake]]:
    """Return the mistakes of an arm's recipes: those of the suite's overrides, and those of the recipe file itself."""
    settings = dict(arm.settings)
    tries: list[tuple[int, tuple[str, ...]]] = [(seed, ()) for seed in suite.seeds]
    if suite.tuning is not None:
        tries.append((suite.tuning.seed, suite.tuning.overrides if _sound(suite.tuning.overrides) else ()))
        settings |= {text: ("tuning", "overrides", place) for place, text in enumerate(suite.tuning.overrides)}
    findings: list[Finding] = []
    outside: list[Mistake] = []
    for seed, more in tries:
        try:
            arm.recipe(seed, *more)
        except RecipeError as error:
            for mistake in error.mistakes:
                text = mistake.key.removeprefix("override '").removesuffix("'")
                if text in settings and mistake.key.startswith("override '"):
                    findings.append(Finding(settings[text], f"'{text}': {mistake.expected}", mistake.suggestion))
                else:
                    outside.append(mistake)
    return findings, outside
