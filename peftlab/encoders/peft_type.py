"""Give peft a method that it does not have: `peft.PeftType` is a closed enum, and peft refuses names outside it.

The one place that knows how Python builds an enum. A member added here is found by name, by value, by iteration and
as an attribute, in Python 3.11 and later; `tests/encoders/test_peft_type.py` pins that.
"""

from __future__ import annotations

from enum import Enum
from typing import Any


def add_member(kind: type[Enum], name: str) -> Any:
    """Return the member of the string enum `kind` whose name and value are `name`, added where it is missing.

    peft looks one up as `PeftType.NAME`, `PeftType["NAME"]`, `PeftType("NAME")` and in `list(PeftType)`.
    """
    if name in kind.__members__:
        return kind[name]
    member: Any = str.__new__(kind, name)  # type: ignore[type-var] # a string enum: its members are strings
    member._name_ = name
    member._value_ = name
    member.__objclass__ = kind
    member._sort_order_ = len(kind)
    # Python 3.11 looks attributes up in the map of members, later versions in the class itself, which `Enum` guards
    # against assignment.
    type.__setattr__(kind, name, member)
    kind._member_map_[name] = member
    kind._member_names_.append(name)
    kind._value2member_map_[name] = member
    if hasattr(kind, "_hashable_values_"):  # from Python 3.13 on, `"NAME" in PeftType` looks there
        kind._hashable_values_.append(name)
    return member
