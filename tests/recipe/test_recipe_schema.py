"""The JSON Schema says what the reader says."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from peftlab.errors import RecipeError
from peftlab.recipe import plugins
from peftlab.recipe.load import read_recipe
from peftlab.recipe.schema import pretraining_schema, recipe_schema
from peftlab.recipe.shipped import is_pretraining
from peftlab.recipe.unknown_keys import PLUGIN_FOLDERS

ROOT = Path(__file__).resolve().parents[2]
SHIPPED_SCHEMA = ROOT / "docs" / "recipe.schema.json"
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The schema of today's records and plug-ins."""
    return recipe_schema()


def objects_in(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema of a table with named keys."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects_in(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects_in(part)


def test_the_schema_is_valid_and_plain_json(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema


def test_the_shipped_schema_is_current(schema: dict[str, Any]) -> None:
    written = json.loads(SHIPPED_SCHEMA.read_text(encoding="utf-8"))
    assert written == schema, f"run `peftlab schema --out {SHIPPED_SCHEMA.relative_to(ROOT)}`"


def test_there_are_recipes_to_hold_against_the_schema() -> None:
    assert len(RECIPES) > 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_fits_the_schema_that_its_first_line_names(path: Path, schema: dict[str, Any]) -> None:
    text = path.read_text(encoding="utf-8")
    name = "pretraining" if is_pretraining(path) else "recipe"
    assert text.startswith(f"#:schema ../docs/{name}.schema.json\n")
    jsonschema.validate(tomllib.loads(text), pretraining_schema() if is_pretraining(path) else schema)


def test_the_shipped_pretraining_schema_is_current_and_valid() -> None:
    path = ROOT / "docs" / "pretraining.schema.json"
    jsonschema.Draft202012Validator.check_schema(pretraining_schema())
    assert json.loads(path.read_text(encoding="utf-8")) == pretraining_schema(), (
        f"run `peftlab schema pretraining --out {path.relative_to(ROOT)}`"
    )


def test_no_table_takes_unknown_keys(schema: dict[str, Any]) -> None:
    tables = list(objects_in(schema))
    assert len(tables) > 10
    assert all(table["additionalProperties"] is False for table in tables)


def test_every_key_is_described_and_every_optional_one_has_its_default(schema: dict[str, Any]) -> None:
    for table in objects_in(schema["$defs"]):
        for key, keyword in table["properties"].items():
            assert keyword.get("description"), f"{table['description']} {key}"
    assert schema["$defs"]["Train"]["properties"]["batch_size"]["default"] == 32


def test_every_plug_in_is_chosen_by_its_name(schema: dict[str, Any]) -> None:
    for section, folder in PLUGIN_FOLDERS.items():
        names = plugins.plugin_names(folder)
        assert [choice["$ref"] for choice in schema["properties"][section]["oneOf"]] == [
            f"#/$defs/{section}-{name}" for name in names
        ]
    assert schema["$defs"]["method-lora"]["properties"]["name"]["const"] == "lora"
    assert schema["$defs"]["method-lora"]["required"] == ["name"]


@pytest.mark.parametrize(
    "change",
    [
        "",
        "train.epochs = 3",
        "train.epochs = 'three'",
        "train.sed = 1",
        "train.batch_size = 0",
        "train.learning_rate = 'auto'",
        "train.learning_rate = 'fast'",
        "optimizer.clip = 'none'",
        "train.epochs = 'none'",
        "encoder.stand_in = 'none'",
        "data.split = [0.5, 0.25, 0.25]",
        "data.split = [0.5, 0.5]",
        "data.checks.imbalance = 'stop'",
        "data.checks.imbalance = 'no'",
        "run.trackers = 'wandb'",
        "task.class_weights = {a = 1}",
        "task.class_weights = {a = 0}",
        "method.name = 'tfidf'",
        "method.r = 8",
        "method.r = '8'",
        "method.learning_rate = 1e-4",
        "metod.r = 8",
        "seed = 1",
    ],
)
@pytest.mark.parametrize("left_out", [None, "encoder", "task", "data", "method"])
def test_schema_and_reader_agree(
    recipe_file: Callable[..., Path], schema: dict[str, Any], change: str, left_out: str | None
) -> None:
    sections = {
        "encoder": 'encoder.name = "bundled:minilm-en"',
        "task": 'task.name = "classification"',
        "data": 'data.source = "builtin:tickets-en"',
        "method": "" if change.startswith("method.name") else 'method.name = "lora"',
    }
    text = "\n".join([*(line for section, line in sections.items() if section != left_out), change])
    path = recipe_file(text)
    try:
        read_recipe(path, cross_check=False)
        accepted = True
    except RecipeError:
        accepted = False
    fits = jsonschema.Draft202012Validator(schema).is_valid(tomllib.loads(path.read_text()))
    assert fits == accepted
