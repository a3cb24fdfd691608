"""The JSON Schema of recipes, for editors: completion, descriptions, and red lines before anything is run.

Shipped recipes carry `#:schema ../docs/recipe.schema.json` as their first line. Taplo, and with it the Even Better TOML
extension, reads this directive when it stands at the head of the file, and takes the path from the file's own folder.
"""

from __future__ import annotations

from inspect import getdoc
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from peftlab.recipe import plugins
from peftlab.recipe.expectations import UNSET
from peftlab.recipe.pretraining import PretrainRecipe
from peftlab.recipe.records import Recipe
from peftlab.recipe.unknown_keys import LISTED_PLUGINS, PLUGIN_FOLDERS, is_required, section_record, sections

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def pretraining_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a pretraining recipe as TOML."""
    return _schema(PretrainRecipe, "peftlab pretraining recipe", "One pretraining on unlabelled text.")


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe as TOML, the settings of every plug-in included."""
    schema = _schema(Recipe, "peftlab recipe", "One training run.")
    method_names = plugins.plugin_names("methods")
    with_encoder = [name for name in method_names if plugins.load_plugin("methods", name).NEEDS_ENCODER]
    names_one_of_them = {"required": ["name"], "properties": {"name": {"enum": with_encoder}}}
    schema["required"] = [section for section in schema["required"] if section != "encoder"]
    condition = {"required": ["method"], "properties": {"method": names_one_of_them}}
    return {**schema, "if": condition, "then": {"required": ["encoder"]}}


def _schema(kind: type[BaseModel], title: str, description: str) -> dict[str, Any]:
    definitions, references = _definitions(kind)
    properties = {section: _property(section, references[section]) for section in sections(kind)}
    return {
        "$schema": DIALECT,
        "title": title,
        "description": description,
        "type": "object",
        "properties": properties,
        "required": [section for section in sections(kind) if is_required(section, kind)],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _property(section: str, references: Any) -> dict[str, Any]:
    """Return the schema of a section: a record's, one of its plug-ins', or a list of tables of such."""
    if section in LISTED_PLUGINS:
        return {"type": "array", "items": {"oneOf": list(references.values())}}
    return {"oneOf": list(references.values())} if section in PLUGIN_FOLDERS else dict(references)


def _definitions(kind: type[BaseModel]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of every record, and for each section a reference to its own, or one for each plug-in."""
    chosen = {**PLUGIN_FOLDERS, **LISTED_PLUGINS}
    plain = [section for section in sections(kind) if section not in chosen]
    records = {section: section_record(section, kind) for section in plain}
    modules = {
        (section, name): plugins.load_plugin(folder, name)
        for section, folder in chosen.items()
        if section in kind.model_fields
        for name in plugins.plugin_names(folder)
    }
    every = [*records.values(), *(module.Config for module in modules.values())]
    by_model, shared = models_json_schema([(record, "validation") for record in every])
    definitions = schema_of_toml(shared["$defs"])
    references: dict[str, Any] = {section: by_model[record, "validation"] for section, record in records.items()}
    for (section, name), module in modules.items():
        settings = definitions.pop(by_model[module.Config, "validation"]["$ref"].removeprefix("#/$defs/"))
        key = f"{section}-{name}"
        definitions[key] = _named(settings, name, getdoc(module) or "")
        references.setdefault(section, {})[name] = {"$ref": f"#/$defs/{key}"}
    return definitions, references


def _named(settings: dict[str, Any], name: str, documentation: str) -> dict[str, Any]:
    """Return the schema of a plug-in's settings with the `name` that chooses it."""
    choice = {"const": name, "description": documentation.partition("\n\n")[0]}
    properties = {"name": choice, **settings.get("properties", {})}
    return {**settings, "properties": properties, "required": ["name", *settings.get("required", [])]}


def schema_of_toml(schema: Any) -> Any:
    """Return `schema` for a language without null, and without the titles that repeat the names of keys."""
    if schema == {"type": "null"}:
        return {"const": UNSET}
    if isinstance(schema, list):
        return [schema_of_toml(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: schema_of_toml(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str)) and not (key == "default" and value is None)
    }
