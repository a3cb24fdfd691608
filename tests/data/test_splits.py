"""Splits made here are stratified, reproducible, and hold each text on one side only."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftlab.data.examples import Example, text_key
from peftlab.data.rows import SplitName
from peftlab.data.splits import Parts, draw, split_off

SHARES: dict[SplitName, float] = {"train": 0.6, "validation": 0.2, "test": 0.2}
BOTH: tuple[SplitName, ...] = ("validation", "test")


def example(index: int, labels: Sequence[str], text: str | None = None) -> Example:
    text = text or f"text {index}"
    return Example(f"rows.csv:{index}", f"rows.csv:{index}", text, None, tuple(labels), text_key(text))


def rows_of(counts: dict[str, int]) -> list[Example]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [example(index, [label]) for index, label in enumerate(labels)]


def split(rows: Sequence[Example], *, seed: int = 0, missing: Sequence[SplitName] = BOTH, multi: bool = False) -> Parts:
    return split_off(rows, missing, shares=SHARES, seed=seed, multi_label=multi)


def counts(rows: Sequence[Example]) -> Counter[str]:
    return Counter(label for row in rows for label in row.labels)


def places(parts: Parts) -> dict[SplitName, list[str]]:
    return {name: [row.place for row in rows] for name, rows in parts.rows.items()}


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(3, 60), min_size=1, max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
def test_shares_hold_for_all_rows_and_for_each_label(sizes: dict[str, int], seed: int) -> None:
    rows = rows_of(sizes)
    parts = split(rows, seed=seed)
    assert sorted(place for listed in places(parts).values() for place in listed) == sorted(row.place for row in rows)
    for name in BOTH:
        assert abs(len(parts.rows[name]) - 0.2 * len(rows)) <= 2
        for label, size in sizes.items():
            assert abs(counts(parts.rows[name])[label] - 0.2 * size) < 2
    assert all(counts(parts.rows["train"])[label] >= 1 for label in sizes)
    assert parts.kept_in_train == {}


def test_totals_are_right_to_a_row_where_labels_do_not_divide_evenly() -> None:
    parts = split(rows_of({f"label {index:02}": 13 for index in range(77)}))
    assert {name: len(rows) for name, rows in parts.rows.items()} == {"train": 601, "validation": 200, "test": 200}


def test_a_single_missing_split_takes_its_share_relative_to_train() -> None:
    parts = split(rows_of({"a": 80, "b": 40}), missing=["validation"])
    assert {name: counts(rows) for name, rows in parts.rows.items()} == {
        "train": {"a": 60, "b": 30},
        "validation": {"a": 20, "b": 10},
    }


def test_rows_keep_the_order_of_the_file() -> None:
    for rows in split(rows_of({"a": 30, "b": 30})).rows.values():
        numbers = [int(row.place.split(":")[1]) for row in rows]
        assert numbers == sorted(numbers)


def test_the_seed_decides_and_the_order_of_the_rows_does_not() -> None:
    rows = rows_of({"a": 50, "b": 50})
    first, again, other = split(rows, seed=1), split(list(reversed(rows)), seed=1), split(rows, seed=2)
    assert {name: sorted(listed) for name, listed in places(first).items()} == {
        name: sorted(listed) for name, listed in places(again).items()
    }
    assert places(first) != places(other)


def test_python_s_hash_seed_does_not_matter() -> None:
    program = (
        "from peftlab.data.examples import Example; from peftlab.data.splits import split_off\n"
        "rows = [Example(str(i), str(i), str(i), None, (c,) if i % 3 else (c, 'z'), str(i)) "
        "for i, c in enumerate('abcdefghij' * 12)]\n"
        "parts = split_off(rows, ['validation', 'test'], shares={'train': .6, 'validation': .2, 'test': .2}, seed=0, "
        "multi_label=True)\n"
        "print([row.id for row in parts.rows['test']], parts.kept_in_train)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


def test_equal_texts_never_stand_on_both_sides() -> None:
    rows = [example(index, ["ab"[index % 2]], f"Text {index // 6}") for index in range(300)]
    rows += [example(300 + index, ["ab"[index % 2]], f"ｔｅｘｔ{index // 6}") for index in range(300)]
    keys = [{row.key for row in part} for part in split(rows).rows.values()]
    assert sum(map(len, keys)) == len(set.union(*keys)) == 50
    assert all(keys)


def test_labels_with_fewer_texts_than_parts_stay_in_train_and_are_named() -> None:
    rows = [*rows_of({"a": 50, "b": 50, "rare": 2}), example(900, ["once"]), example(901, ["once"], "text 900")]
    parts = split(rows)
    assert parts.kept_in_train == {"once": 1, "rare": 2}
    for label in ("once", "rare"):
        assert counts(parts.rows["train"])[label] == 2


@settings(deadline=None, max_examples=40)
@given(
    labels=st.lists(st.frozensets(st.sampled_from("abcdef"), max_size=4), min_size=30, max_size=150),
    seed=st.integers(0, 100),
)
def test_multi_label_splits_leave_every_label_in_train_and_keep_the_shares(
    labels: list[frozenset[str]], seed: int
) -> None:
    rows = [example(index, sorted(names)) for index, names in enumerate(labels)]
    parts = split(rows, seed=seed, multi=True)
    assert set(counts(parts.rows["train"])) == set(counts(rows))
    if not parts.kept_in_train:
        for name in BOTH:
            assert abs(len(parts.rows[name]) - 0.2 * len(rows)) <= 2


def test_multi_label_shares_hold_for_each_label() -> None:
    rows = [
        example(i, [n for n, every in (("a", 2), ("b", 3), ("c", 5), ("d", 20)) if i % every == 0]) for i in range(600)
    ]
    parts = split(rows, multi=True)
    for label, size in counts(rows).items():
        for name in BOTH:
            assert counts(parts.rows[name])[label] == pytest.approx(0.2 * size, abs=3)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), min_size=1, max_size=8),
    count=st.integers(1, 500),
    seed=st.integers(0, 100),
)
def test_a_draw_has_exactly_the_rows_asked_for_and_every_label_that_fits(
    sizes: dict[str, int], count: int, seed: int
) -> None:
    rows = rows_of(sizes)
    drawn = draw(rows, count, seed=seed)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == min(count, len(rows))
    if count >= len(sizes):
        assert set(counts([rows[index] for index in drawn])) == set(sizes)


def test_a_draw_is_stratified_and_follows_the_seed() -> None:
    rows = rows_of({"a": 600, "b": 300, "c": 100})
    drawn = draw(rows, 100, seed=3)
    assert counts([rows[index] for index in drawn]) == {"a": 60, "b": 30, "c": 10}
    assert drawn == draw(rows, 100, seed=3) != draw(rows, 100, seed=4)


def test_a_draw_takes_repeated_texts_one_by_one() -> None:
    assert len(draw([example(index, ["ab"[index % 2]], "same") for index in range(50)], 10, seed=0)) == 10


def by_hand(
    rows: Sequence[Example], missing: Sequence[SplitName], seed: int, *, multi: bool
) -> tuple[dict[str, str], dict[str, int]]:
    """Split as `split_off` says, text by text: the part of each text, and the labels that stayed in train."""
    labels: dict[str, tuple[str, ...]] = {}
    for row in rows:
        labels.setdefault(row.key, row.labels)
    counts = Counter(label for names in labels.values() for label in names)
    small = {label for label, count in counts.items() if count <= len(missing)}
    ordered = sorted(labels, key=lambda key: hashlib.sha256(f"{seed}\x1e{key}".encode()).digest())
    strata: dict[tuple[str, ...], list[str]] = {}
    for key in ordered:
        if small.isdisjoint(labels[key]):
            strata.setdefault(labels[key], []).append(key)
    parts = dict.fromkeys(labels, "train")
    left = sum(SHARES[name] for name in ("train", *missing))
    for name in missing:
        carry = 0.0
        for names in sorted(strata):
            carry += SHARES[name] / left * len(strata[names])
            number = max(0, min(math.floor(carry + 0.5), len(strata[names]) - (0 if multi else 1)))
            carry -= number
            parts.update(dict.fromkeys(strata[names][:number], name))
            strata[names] = strata[names][number:]
        left -= SHARES[name]
    lost = set(counts) - {label for key, part in parts.items() if part == "train" for label in labels[key]}
    parts.update({key: "train" for key in labels if lost.intersection(labels[key])})
    return parts, {label: counts[label] for label in small | lost}


@given(
    st.lists(st.tuples(st.integers(0, 25), st.sets(st.sampled_from("abc"), max_size=2)), max_size=60),
    st.sampled_from([BOTH, ("validation",), ("test",)]),
    st.integers(0, 3),
    st.booleans(),
)
def test_every_text_is_where_the_rule_puts_it(
    made: list[tuple[int, set[str]]], missing: tuple[SplitName, ...], seed: int, multi: bool
) -> None:
    texts = [(number, sorted(names) if multi else ["ab"[number % 2]]) for number, names in made]
    rows = [example(index, names, f"text {number}") for index, (number, names) in enumerate(texts)]
    parts, kept = by_hand(rows, missing, seed, multi=multi)
    found = split(rows, seed=seed, missing=missing, multi=multi)
    assert found.kept_in_train == kept
    for name in ("train", *missing):
        assert [row.id for row in found.rows[name]] == [row.id for row in rows if parts[row.key] == name]
