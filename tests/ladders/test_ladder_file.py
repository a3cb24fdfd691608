"""The shipped ladders: sound, named after their files, and in the form that the schema says."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from peftlab.ladders.ladder import DEFAULT, default_rungs, ladder_paths, load_ladder, read_ladder, settings_of
from peftlab.ladders.schema import ladder_schema
from peftlab.recipe.load import read_recipe
from peftlab.recipe.resolve import resolved

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "recipes" / "ladders").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_ladder_is_sound_with_each_of_its_rungs(path: Path) -> None:
    ladder = read_ladder(path)
    assert ladder.name == path.stem
    assert path.read_text(encoding="utf-8").startswith("#:schema ../../docs/ladder.schema.json\n# ")
    jsonschema.validate(tomllib.loads(path.read_text(encoding="utf-8")), ladder_schema())
    if path.stem == DEFAULT:
        return
    ladder, recipe, _ = load_ladder(path.stem)
    assert ladder.ceilings.minutes is not None
    for rung in ladder.rungs:
        more = ('distill.teachers=["x"]',) if rung.teachers else ()
        read = resolved(read_recipe(recipe, settings_of(ladder, rung, more)))
        assert not read.evaluation.score_test
        assert not read.data.train_on_validation
        assert read.budget.trainable_parameters == ladder.ceilings.trainable_parameters


def test_the_shipped_schema_is_that_of_the_records() -> None:
    """Written by: peftlab schema ladder --out docs/ladder.schema.json."""
    shipped = json.loads((ROOT / "docs" / "ladder.schema.json").read_text(encoding="utf-8"))
    assert shipped == ladder_schema()


def test_the_default_ladder_climbs_from_no_encoder_to_the_next_one() -> None:
    rungs = default_rungs()
    names = [rung.name for rung in rungs]
    assert (names[0], names[1], names[-1]) == ("tfidf", "probe", "next-encoder")
    assert all(rung.about for rung in rungs)
    assert "default" in ladder_paths()
