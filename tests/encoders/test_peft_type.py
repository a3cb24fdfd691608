"""The enum of peft's methods takes one more; this pins how Python builds an enum."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from enum import Enum

import pytest
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from peftlab.encoders.bottleneck import BottleneckConfig, BottleneckTuner, register_bottleneck
from peftlab.encoders.peft_type import add_member


class Fruit(str, Enum):  # noqa: UP042 that is the form
    """An enum of the same form as peft's."""

    APPLE = "APPLE"
    PEAR = "PEAR"


@pytest.fixture
def plum() -> Fruit:
    """Return the added member."""
    member = add_member(Fruit, "PLUM")
    assert isinstance(member, Fruit)
    return member


def test_an_added_member_is_found_in_every_way(plum: Fruit) -> None:
    assert Fruit("PLUM") is plum
    assert Fruit["PLUM"] is plum
    assert getattr(Fruit, "PLUM") is plum  # noqa: B009 the type checker does not know the attribute
    assert list(Fruit) == ["APPLE", "PEAR", "PLUM"]
    assert len(Fruit) == 3
    assert plum in Fruit
    if sys.version_info >= (3, 12):
        assert "PLUM" in Fruit
    assert Fruit.__members__["PLUM"] is plum


def test_an_added_member_behaves_as_one_that_was_written(plum: Fruit) -> None:
    assert (plum.name, plum.value, repr(plum)) == ("PLUM", "PLUM", "<Fruit.PLUM: 'PLUM'>")
    assert str(plum).replace("PLUM", "PEAR") == str(Fruit.PEAR)
    assert plum == "PLUM"
    assert hash(plum) == hash("PLUM")
    assert plum not in (Fruit.APPLE, Fruit.PEAR)
    assert json.dumps(plum) == '"PLUM"'
    assert copy.deepcopy(plum) is plum
    assert pickle.loads(pickle.dumps(plum)) is plum


def test_adding_twice_adds_once_and_the_others_stay(plum: Fruit) -> None:
    assert add_member(Fruit, "PLUM") is plum
    assert add_member(Fruit, "PEAR") is Fruit.PEAR
    assert len(Fruit) == 3
    with pytest.raises(AttributeError):
        Fruit.APPLE = "other"  # type: ignore[misc,assignment]
    with pytest.raises(ValueError, match="CHERRY"):
        Fruit("CHERRY")


def test_peft_knows_the_method_once_it_is_registered_and_registering_again_changes_nothing() -> None:
    kind = register_bottleneck()
    others = [member for member in PeftType if member is not kind]

    assert register_bottleneck() is kind
    assert kind in list(PeftType)
    assert PeftType("LORA") is PeftType.LORA
    assert len(others) == len(PeftType) - 1
    assert PEFT_TYPE_TO_CONFIG_MAPPING["BOTTLENECK"] is BottleneckConfig  # type: ignore[index] # as read from a file
    assert PEFT_TYPE_TO_TUNER_MAPPING[kind] is BottleneckTuner
    assert PEFT_TYPE_TO_PREFIX_MAPPING[kind] == "bottleneck_"
