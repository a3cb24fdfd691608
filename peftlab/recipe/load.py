"""From a TOML file and overrides to a Recipe or PretrainRecipe, or to every mistake in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from peftlab.errors import RecipeError
from peftlab.recipe import plugins
from peftlab.recipe.crosschecks import Draft, cross_checks, pretraining_checks
from peftlab.recipe.expectations import as_toml
from peftlab.recipe.plugin_lists import check_plugin_list
from peftlab.recipe.pretraining import PretrainRecipe
from peftlab.recipe.records import Recipe
from peftlab.recipe.sections import check_plugin, check_table, chosen_plugins
from peftlab.recipe.source import Finding, Source, read_source
from peftlab.recipe.unknown_keys import (
    LISTED_PLUGINS,
    PLUGIN_FOLDERS,
    Vocabulary,
    is_required,
    nearest,
    section_record,
    sections,
    unknown_key,
    vocabulary,
)


def read_recipe(path: Path, overrides: Sequence[str] = (), *, cross_check: bool = True) -> Recipe:
    """Read the recipe at `path` with `overrides`, each `key.path=value` (see `overrides`).

    Raises RecipeError with all mistakes: those of the file by line, then what is missing, then those of overrides.
    Text that is no TOML has one mistake, where reading stopped. With `cross_check=False` settings are not held
    against each other and against this machine: for the recipe that a finished run keeps.
    """
    source = read_source(path, overrides)
    if "corpus" in source.values and "data" not in source.values:
        other = Finding(("corpus",), "this is a pretraining recipe", f"run: peftlab pretrain {path}")
        raise RecipeError(source.mistakes([other]))
    records, findings = _typed(source, Recipe)
    if cross_check:
        draft = Draft(**{name: records[name] for name in Draft.__dataclass_fields__})
        findings += cross_checks(draft, source)
    if mistakes := source.mistakes(findings):
        raise RecipeError(mistakes)
    return Recipe(name=records["run"].recipe or path.stem, path=path, **records)


def read_pretraining(path: Path, overrides: Sequence[str] = (), *, cross_check: bool = True) -> PretrainRecipe:
    """Read the pretraining recipe at `path` as `read_recipe` reads a training recipe."""
    source = read_source(path, overrides)
    if "task" in source.values and "corpus" not in source.values:
        other = Finding(("task",), "this is a training recipe", f"run: peftlab train {path}")
        raise RecipeError(source.mistakes([other]))
    records, findings = _typed(source, PretrainRecipe)
    if cross_check:
        findings += pretraining_checks(records, source)
    if mistakes := source.mistakes(findings):
        raise RecipeError(mistakes)
    return PretrainRecipe(name=path.stem, path=path, **records)


def _typed(source: Source, kind: type[BaseModel]) -> tuple[dict[str, Any], list[Finding]]:
    """Return the record of each section, None where there is none, and every mistake of single settings."""
    chosen, findings = chosen_plugins(source)
    words = vocabulary(source, chosen, kind)
    findings += _outside_sections(source, words)
    records, in_sections = _sections(source, words, kind)
    findings += in_sections
    findings += _missing_sections(source, words, kind)
    for blocked, parent in source.overridden.blocked.items():
        findings.append(Finding(blocked, f"{parent} is no section, so no key can be set in it"))
    return records, findings


def _sections(source: Source, words: Vocabulary, kind: type[BaseModel]) -> tuple[dict[str, Any], list[Finding]]:
    """Return the record of each section, None where there is none, and the mistakes in all of them."""
    records: dict[str, Any] = {}
    findings: list[Finding] = []
    for section in sections(kind):
        table = source.values.get(section)
        records[section] = None
        if section in LISTED_PLUGINS:
            records[section], found = check_plugin_list(section, source, words)
            findings += found
        elif section in PLUGIN_FOLDERS:
            if isinstance(table, dict) and section in words.chosen:
                records[section], found = check_plugin(section, words.chosen[section], source, words)
                findings += found
        elif isinstance(table, dict) or (table is None and _has_default(section, kind)):
            records[section], found = check_table((section,), section_record(section, kind), table or {}, source, words)
            findings += found
    return records, findings


def _has_default(section: str, kind: type[BaseModel]) -> bool:
    field = kind.model_fields[section]
    return not field.is_required() and field.get_default() is not None


def _outside_sections(source: Source, words: Vocabulary) -> list[Finding]:
    findings = []
    for key, value in source.values.items():
        if key not in words.keys[()]:
            findings.append(unknown_key((key,), words))
        elif not isinstance(value, dict) and key not in LISTED_PLUGINS:
            findings.append(Finding((key,), f"expected a section, written [{key}], found {as_toml(value)}"))
    return findings


def _missing_sections(source: Source, words: Vocabulary, kind: type[BaseModel]) -> list[Finding]:
    # A section that is only misspelt is one mistake, not two.
    present = {*source.values, *(nearest((key,), words) for key in source.values if key not in words.keys[()])}
    findings = []
    for section in sections(kind):
        if not is_required(section, kind) or section in present:
            continue
        if section in PLUGIN_FOLDERS:
            names = ", ".join(map(as_toml, plugins.plugin_names(PLUGIN_FOLDERS[section])))
            findings.append(Finding((section,), "the section is missing", f"add [{section}] with name, one of {names}"))
        elif section == "data":
            advice = 'add [data] with train, source or hub, such as source = "builtin:tickets-en"'
            findings.append(Finding((section,), "the section is missing", advice))
        elif section == "corpus":
            advice = 'add [corpus] with files = ["text/*.txt"], or source = "builtin:tickets-zh"'
            findings.append(Finding((section,), "the section is missing", advice))
        elif "method" in words.chosen and plugins.load_plugin("methods", words.chosen["method"]).NEEDS_ENCODER:
            advice = 'add [encoder] with name, such as name = "bundled:minilm-en"'
            expected = f"the section is missing, and {words.chosen['method']} needs an encoder"
            findings.append(Finding((section,), expected, advice))
    return findings
