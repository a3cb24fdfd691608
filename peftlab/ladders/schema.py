"""The JSON Schema of ladders, for editors; see `peftlab.recipe.schema`."""

from __future__ import annotations

from typing import Any

from peftlab.ladders.ladder import Ladder
from peftlab.recipe.schema import DIALECT, schema_of_toml


def ladder_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a ladder as TOML."""
    schema: dict[str, Any] = schema_of_toml(Ladder.model_json_schema())
    return {"$schema": DIALECT, "title": "peftlab ladder", **schema}
