"""The JSON Schema of suites, for editors; see `peftlab.recipe.schema`."""

from __future__ import annotations

from typing import Any

from peftlab.recipe.schema import DIALECT, schema_of_toml
from peftlab.suites.suite import Suite


def suite_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a suite as TOML."""
    schema: dict[str, Any] = schema_of_toml(Suite.model_json_schema())
    return {"$schema": DIALECT, "title": "peftlab suite", **schema}
