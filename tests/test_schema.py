"""`peftlab schema` prints the JSON Schema of recipes, or writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftlab.cli import main
from peftlab.recipe.schema import pretraining_schema, recipe_schema


def test_the_schema_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == recipe_schema()
    assert main(["schema", "pretraining"]) == 0
    assert json.loads(capsys.readouterr().out) == pretraining_schema()


def test_the_schema_is_written_where_asked_and_nothing_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "recipe.schema.json"
    assert main(["schema", "--out", str(out)]) == 0
    assert json.loads(out.read_text(encoding="utf-8")) == recipe_schema()
    assert capsys.readouterr().out == ""
