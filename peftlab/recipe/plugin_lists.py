"""`[[curate]]`: tables in order, in each of which `name` chooses a plug-in that types the other keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from peftlab.recipe import plugins
from peftlab.recipe.expectations import as_toml
from peftlab.recipe.records import Choice, Encoder, Record
from peftlab.recipe.sections import check_table
from peftlab.recipe.source import Finding, Source
from peftlab.recipe.unknown_keys import LISTED_PLUGINS, Vocabulary

Choices = tuple[Choice[Record], ...]


def check_plugin_list(section: str, source: Source, words: Vocabulary) -> tuple[Choices | None, list[Finding]]:
    """Type every table of the list `section`; None, with the mistakes, where one of them makes no plug-in."""
    tables = source.values.get(section, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        expected = f"expected tables, each written [[{section}]], found {as_toml(tables)}"
        return None, [Finding((section,), expected)]
    made: list[Choice[Record]] = []
    findings: list[Finding] = []
    for place, table in enumerate(tables):
        name, wrong = _name(section, place, table)
        findings += wrong
        if name is None:
            continue
        config = plugins.load_plugin(LISTED_PLUGINS[section], name).Config
        settings = {key: value for key, value in table.items() if key != "name"}
        record, found = check_table((section, place), config, settings, source, words)
        findings += found
        if record is not None:
            made.append(Choice[Record](name=name, config=record))
    return (tuple(made) if len(made) == len(tables) else None), findings


def _name(section: str, place: int, table: Mapping[str, Any]) -> tuple[str | None, list[Finding]]:
    known = plugins.plugin_names(LISTED_PLUGINS[section])
    name = table.get("name")
    if name in known:
        return str(name), []
    expected = f"expected one of {', '.join(map(as_toml, known))}"
    if name is None:
        return None, [Finding((section, place, "name"), f"name is missing; {expected}")]
    near = get_close_matches(str(name).lower(), known, n=1)
    advice = f'did you mean "{near[0]}"?' if near else None
    return None, [Finding((section, place, "name"), f"{expected}, found {as_toml(name)}", advice)]


def curator_checks(choices: Choices, task: Choice[Record] | None, encoder: Encoder | None) -> Iterator[Finding]:
    """Yield what does not go together in `[[curate]]` and the rest of the recipe, and packages that are absent."""
    for place, choice in enumerate(choices):
        module, path = plugins.load_plugin("curators", choice.name), ("curate", place)
        absent = [package for package in module.PACKAGES if find_spec(package) is None]
        if absent:
            expected = f"{choice.name} needs the package {absent[0]}, which is not installed"
            yield Finding((*path, "name"), expected, 'pip install "peftlab[curate]"')
        if task is not None and "curate" not in plugins.load_plugin("tasks", task.name).FEATURES:
            yield Finding((*path, "name"), f"curators work on rows of text and label, and {task.name} has others")
        elif task is not None and module.SINGLE_LABEL and getattr(task.config, "multi_label", False):
            expected = f"{choice.name} needs one label a row, and task.multi_label is true"
            yield Finding((*path, "name"), expected, "remove the table")
        for key, expected, advice in module.checks(choice.config, encoder is not None):
            yield Finding((*path, key), expected, advice)
