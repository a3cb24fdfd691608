"""Drop rows whose text another row has already, exactly or nearly.

Exactly: the same text but for case, width and white space. Nearly: the same label, and character n-grams that overlap
by at least `threshold` (Jaccard index). Candidates come from MinHash with locality-sensitive hashing (Broder 1997;
datasketch) and are then compared by their n-grams themselves. The first row of each group stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from peftlab.curation.folds import mostly_cjk
from peftlab.curation.rows import Bench, Change, Curated, Rows
from peftlab.data.examples import text_key
from peftlab.recipe.records import Positive, Record

PACKAGES = ("datasketch",)
SINGLE_LABEL = False
_PERMUTATIONS = 128


class Config(Record):
    """Settings of the search for duplicates."""

    near: bool = True
    """Drop near duplicates too; `false`: exact ones only."""
    threshold: Annotated[float, Field(ge=0.5, le=1.0)] = 0.9
    """Least Jaccard index of character n-grams at which two texts count as nearly the same."""
    ngram: Positive | Literal["auto"] = "auto"
    """Characters of an n-gram; `auto`: 3 where the texts are mostly Chinese, Japanese or Korean, else 5."""
    conflicts: Literal["keep", "majority", "drop"] = "majority"
    """The same text under several labels: `majority` keeps one row of the commonest label, none where two are equally
    common; `drop` keeps none; `keep` keeps one row of each label."""


def checks(config: Config, has_encoder: bool) -> Iterator[tuple[str, str, str | None]]:  # noqa: ARG001 the contract
    """Yield settings that do not go together: none."""
    yield from ()


def curate(rows: Rows, config: Config, bench: Bench) -> Curated:
    """Return the rows to drop, each with the row that it repeats."""
    labels = [bench.labels_of(rows, place) for place in range(len(rows))]
    pairs: Sequence[str | None] = rows.split.pairs or [None] * len(rows)
    keys = [text_key(text, pair) for text, pair in zip(rows.split.texts, pairs, strict=True)]
    groups: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    changes: list[Change] = []
    kept: list[int] = []
    conflicting = 0
    for group in groups.values():
        staying, why = _staying([(place, labels[place]) for place in group], config.conflicts)
        conflicting += len({labels[place] for place in group}) > 1
        kept += staying
        changes += [
            Change("drop", int(rows.numbers[place]), why or f"the same text as row {rows.numbers[staying[0]]}")
            for place in group
            if place not in staying
        ]
    near = _near(sorted(kept), keys, labels, config, bench.seed) if config.near else {}
    changes += [
        Change("drop", int(rows.numbers[place]), f"nearly the same text as row {rows.numbers[first]}", score=alike)
        for place, (first, alike) in near.items()
    ]
    exact = len(changes) - len(near)
    return Curated(changes, {"exact": exact, "near": len(near), "texts_with_several_labels": conflicting})


def _staying(group: list[tuple[int, tuple[str, ...]]], conflicts: str) -> tuple[list[int], str | None]:
    """Return which rows of one text stay, and why the others go where it is not for being repeats."""
    first: dict[tuple[str, ...], int] = {}
    for place, names in group:
        first.setdefault(names, place)
    if len(first) == 1 or conflicts == "keep":
        return list(first.values()), None
    counts = Counter(names for _, names in group).most_common(2)
    if conflicts == "drop" or counts[0][1] == counts[1][1]:
        return [], f"the same text stands under {len(first)} labels"
    return [first[counts[0][0]]], None


def _near(
    places: list[int], keys: list[str], labels: list[tuple[str, ...]], config: Config, seed: int
) -> dict[int, tuple[int, float]]:
    """Return the near duplicates among `places`: the earlier row that stays, and how alike they are."""
    from datasketch import MinHash, MinHashLSH

    size = config.ngram if config.ngram != "auto" else (3 if mostly_cjk([keys[place] for place in places]) else 5)
    # A little below the threshold, so that its errors rarely lose a pair; the n-grams decide.
    index = MinHashLSH(threshold=max(0.1, config.threshold - 0.1), num_perm=_PERMUTATIONS)
    grams: dict[int, frozenset[str]] = {}
    found: dict[int, tuple[int, float]] = {}
    for place in places:
        own = _ngrams(keys[place], size)
        sign = MinHash(num_perm=_PERMUTATIONS, seed=seed % 2**32)
        sign.update_batch([gram.encode() for gram in sorted(own)])
        alike = [(_jaccard(own, grams[other]), -other) for other in index.query(sign) if labels[other] == labels[place]]
        best = max(alike, default=(0.0, 0))
        if best[0] >= config.threshold:
            found[place] = (-best[1], round(best[0], 6))
            continue
        grams[place] = own
        index.insert(place, sign, check_duplication=False)
    return found


def _ngrams(key: str, size: int) -> frozenset[str]:
    return frozenset(key[start : start + size] for start in range(max(1, len(key) - size + 1)))


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)
