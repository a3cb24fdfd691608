"""What a field of a record accepts, in plain words, and what a value that it refuses was probably meant to be."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from peftlab.recipe.records import Record

UNSET = "none"
"""How a recipe says that a key has no value: TOML has no null."""

_NOUNS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def expected_words(field: FieldInfo) -> str:
    """Return what `field` accepts: ``a number above 0 and below 10, or "auto"``."""
    return _words(field.annotation, field.metadata)


def accepts_none(field: FieldInfo) -> bool:
    """Say whether `field` may be unset, and `none` is not one of its own words."""
    return NoneType in _members(field.annotation) and UNSET not in literals(field)


def is_text(field: FieldInfo) -> bool:
    """Say whether `field` takes free text and nothing else, unset apart."""
    return set(_members(field.annotation)) - {NoneType} == {str}


def literals(field: FieldInfo) -> tuple[str, ...]:
    """Return the words that `field` accepts, where it accepts only certain words."""
    found = (get_args(member) for member in _members(field.annotation) if get_origin(member) is Literal)
    return tuple(word for words in found for word in words if isinstance(word, str))


def record_of(field: FieldInfo) -> type[Record] | None:
    """Return the record that `field` holds, where it is a section within a section."""
    return next(
        (kind for kind in _members(field.annotation) if isinstance(kind, type) and issubclass(kind, Record)), None
    )


def as_toml(value: Any) -> str:
    """Return `value` as a recipe would spell it, shortened to about sixty characters."""
    if isinstance(value, dict):
        return "a table"
    text = _toml(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def meant(field: FieldInfo, value: Any) -> str | None:
    """Return advice where `value`, which `field` refuses, is a small slip away from one that it accepts."""
    if isinstance(value, str):
        words = {word.lower(): word for word in literals(field)}
        if near := get_close_matches(value.lower(), words, n=1):
            return f"did you mean {as_toml(words[near[0]])}?"
        if accepts_none(field) and value.lower() in ("", "null", UNSET, "unset", "nil"):
            return f'write "{UNSET}", or leave the key out'
    for candidate, advice in _slips(value):
        if _accepts(field, candidate):
            return advice
    return None


def _slips(value: Any) -> Iterable[tuple[Any, str]]:
    if isinstance(value, str):
        try:
            bare = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            bare = {"True": True, "False": False}.get(value)
        if isinstance(bare, (int, float)):
            yield bare, f"write {as_toml(bare)} without quotes"
    if isinstance(value, float) and value.is_integer():
        yield int(value), f"write {int(value)}"
    if isinstance(value, (bool, int, float)):
        yield as_toml(value), f'write "{as_toml(value)}" in quotes'
    if isinstance(value, (str, bool, int, float)):
        yield [value], f"write [{as_toml(value)}]"
    if isinstance(value, list) and len(value) == 1:
        yield value[0], f"write {as_toml(value[0])} without brackets"


def _accepts(field: FieldInfo, value: Any) -> bool:
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the types that `annotation` is a union of, without their limits."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(member for part in get_args(annotation) for member in _members(part))
    return (annotation,)


def _words(annotation: Any, metadata: Sequence[Any]) -> str:
    parts = get_args(annotation)
    match get_origin(annotation):
        case kind if kind is Annotated:
            words = _words(parts[0], [*_flat(parts[1:]), *metadata])
        case kind if kind is Union or kind is UnionType:
            choices = [_words(part, metadata) for part in parts if part is not NoneType]
            unset = f'"{UNSET}"'
            if NoneType in parts and not any(unset in choice for choice in choices):
                choices.append(unset)
            words = ", or ".join(choices)
        case kind if kind is Literal:
            words = as_toml(parts[0]) if len(parts) == 1 else f"one of {', '.join(map(_toml, parts))}"
        case kind if kind is tuple or kind is list:
            words = _list_words(parts, fixed=kind is tuple and parts[-1] is not Ellipsis)
        case kind if kind is dict:
            words = f"a table in which each value is {_words(parts[1], ())}"
        case _:
            words = _NOUNS.get(annotation, "a table") + _limits(annotation, metadata)
    return words


def _list_words(parts: tuple[Any, ...], *, fixed: bool) -> str:
    if not fixed:
        return f"a list in which each value is {_words(parts[0], ())}"
    words = [_words(part, ()) for part in parts]
    each = f"each {words[0]}" if len(set(words)) == 1 else "; ".join(words)
    return f"a list of {len(parts)} values, {each}"


def _limits(annotation: Any, metadata: Iterable[Any]) -> str:
    found = []
    for limit in metadata:
        match limit:
            case annotated_types.Gt(gt=bound):
                found.append(f"above {_bound(bound)}")
            case annotated_types.Ge(ge=bound):
                found.append(f"at least {_bound(bound)}")
            case annotated_types.Lt(lt=bound):
                found.append(f"below {_bound(bound)}")
            case annotated_types.Le(le=bound):
                found.append(f"at most {_bound(bound)}")
            case annotated_types.MinLen(min_length=1) if annotation is str:
                return " that is not empty"
    if not found:
        return ""
    return (" of " if found[0].startswith("at") else " ") + " and ".join(found)


def _bound(value: object) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _flat(metadata: Iterable[Any]) -> list[Any]:
    return [limit for item in metadata for limit in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _toml(value: Any) -> str:
    match value:
        case bool() | str():
            text = json.dumps(value, ensure_ascii=False)
        case list():
            text = f"[{', '.join(map(_toml, value))}]"
        case dict():
            text = f"{{{', '.join(f'{key} = {_toml(item)}' for key, item in value.items())}}}"
        case int() if value.bit_length() > 64:
            text = "a number beyond 64 bit"
        case None:
            text = f'"{UNSET}"'
        case _:
            text = str(value)
    return text
