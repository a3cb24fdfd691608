"""What a field accepts is said in plain words, and small slips are recognised."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from peftlab.recipe.expectations import accepts_none, as_toml, expected_words, is_text, meant
from peftlab.recipe.records import Fraction, Positive, Record


class Inner(Record):
    """A section within a section."""


class Example(Record):
    """One field of each kind that recipes have."""

    whole: Annotated[int, Field(ge=4, le=8192)] = 128
    share: Fraction = 0.5
    rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    text: str = "a"
    maybe: str | None = None
    limit: Positive | None = 3
    word: Literal["none", "balanced"] | None = None
    switch: bool = False
    names: tuple[str, ...] = ()
    layers: tuple[int, ...] | Literal["all"] = "all"
    pair: tuple[int, str] = (1, "a")
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}  # noqa: RUF012 pydantic copies it
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("whole", "a whole number of at least 4 and at most 8192"),
        ("share", "a number of at least 0 and below 1"),
        ("rate", 'a number above 0, or "auto"'),
        ("text", "text"),
        ("maybe", 'text, or "none"'),
        ("limit", 'a whole number above 0, or "none"'),
        ("word", 'one of "none", "balanced"'),
        ("switch", "true or false"),
        ("names", "a list in which each value is text"),
        ("layers", 'a list in which each value is a whole number, or "all"'),
        ("pair", "a list of 2 values, a whole number; text"),
        ("weights", "a table in which each value is a number above 0"),
        ("inner", "a table"),
    ],
)
def test_a_field_is_described_in_words(name: str, words: str) -> None:
    assert expected_words(Example.model_fields[name]) == words


def test_unset_and_free_text_are_told_apart() -> None:
    fields = Example.model_fields
    assert [name for name in fields if accepts_none(fields[name])] == ["maybe", "limit"]
    assert [name for name in fields if is_text(fields[name])] == ["text", "maybe"]


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("whole", "16", "write 16 without quotes"),
        ("whole", 16.0, "write 16"),
        ("whole", "3", None),
        ("whole", 3, None),
        ("switch", "True", "write true without quotes"),
        ("text", 3, 'write "3" in quotes'),
        ("names", "a", 'write ["a"]'),
        ("text", ["a"], 'write "a" without brackets'),
        ("text", ["a", "b"], None),
        ("layers", "al", 'did you mean "all"?'),
        ("word", "BALANCED", 'did you mean "balanced"?'),
        ("limit", "null", 'write "none", or leave the key out'),
        ("text", {"a": 1}, None),
    ],
)
def test_a_small_slip_is_recognised(name: str, value: object, advice: str | None) -> None:
    assert meant(Example.model_fields[name], value) == advice


def test_long_values_are_shortened_and_huge_numbers_not_printed() -> None:
    assert as_toml("x" * 100) == '"' + "x" * 55 + " ..."
    assert as_toml(16**5000) == "a number beyond 64 bit"
    assert as_toml([True, 1.5, "ü", [], {"a": 1}]) == '[true, 1.5, "ü", [], {a = 1}]'
