"""What is wrong, or doubtful, with the rows of the three splits: counted, and named by place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from peftlab.data.examples import Example, Labels, Unusable
from peftlab.data.mojibake import is_broken
from peftlab.data.rows import SplitName
from peftlab.data.surveyed import LONG_TEXT, Rows, repeated, survey
from peftlab.recipe.records import DataChecks, Severity

Check = Literal[
    "no_rows",
    "one_class",
    "empty_text",
    "missing_label",
    "unseen_label",
    "broken_encoding",
    "duplicates",
    "conflicting_labels",
    "split_overlap",
    "imbalance",
    "truncation",
    "long_rows",
]

PLACES = 20  # row places that a report keeps for each finding and split
FEW_ROWS = 5
LARGEST_RATIO = 100
CUT_SHARE = 0.05

REMEDIES: Mapping[Check, str] = {
    "no_rows": "give it rows, or take the file out of the recipe so that rows are split off train",
    "one_class": "one class cannot be learned: add rows of another class, or correct data.label",
    "empty_text": "fill in or remove these rows, or correct data.text",
    "missing_label": "label or remove these rows, or correct data.label",
    "unseen_label": "add training rows of these labels, or correct their spelling",
    "broken_encoding": "export these texts again as UTF-8",
    "duplicates": "keep one row of each text",
    "conflicting_labels": "decide on one label for each text",
    "split_overlap": "remove these rows from one of the splits",
    "imbalance": "add rows to the small classes, or merge them",
    "truncation": "raise encoder.max_length, or shorten the texts",
    "long_rows": "check whether several records ran together",
}
_LEFT_OUT = "these rows are left out"
_CONSEQUENCES: Mapping[Check, str] = {
    "empty_text": _LEFT_OUT,
    "missing_label": _LEFT_OUT,
    "unseen_label": "these rows are kept and can only be predicted wrongly",
}

Splits = Mapping[SplitName, Rows]
Alike = Mapping[SplitName, Sequence[Example]]
"""Of each split the rows that may have the text of another row, of whichever split."""


@dataclass(frozen=True)
class Finding:
    """One check that found something. `places` holds every row of each split; `count` is said by `sentence`."""

    check: Check
    severity: Severity
    sentence: str
    count: int
    places: Mapping[str, Sequence[str]]

    def record(self) -> dict[str, Any]:
        """Return the finding as the report keeps it: at most 20 places a split, in the order of the rows."""
        return {
            "check": self.check,
            "severity": self.severity,
            "count": self.count,
            "sentence": self.sentence,
            "by_split": {split: len(places) for split, places in self.places.items()},
            "places": {split: list(places[:PLACES]) for split, places in self.places.items()},
        }

    def line(self, shown: int) -> str:
        """Return one line for people: the sentence, the first `shown` places, and what is or can be done."""
        places = [place for listed in self.places.values() for place in listed]
        more = ", ..." if len(places) > shown else ""
        where = f" ({', '.join(places[:shown])}{more})" if places else ""
        advice = REMEDIES[self.check]
        if self.severity == "warn":
            advice = _CONSEQUENCES.get(self.check, advice)
        elif self.check in DataChecks.model_fields:
            advice += f', or set data.checks.{self.check} = "warn"'
            if self.check in _CONSEQUENCES:
                advice += f" ({_CONSEQUENCES[self.check]})"
        return f"{self.check}: {self.sentence}{where}; {advice}"


def find_problems(
    rows: Mapping[SplitName, Sequence[Example]],
    unusable: Mapping[SplitName, Sequence[Unusable]],
    checks: DataChecks,
    *,
    multi_label: bool,
    lengths: Mapping[SplitName, NDArray[Any]] | None = None,
    max_length: int | None = None,
) -> list[Finding]:
    """Return what the checks find, in the order of `Check`.

    `unusable` is by the split of the file that the rows stand in. `lengths`: tokens of each row of `rows`, [rows],
    before any cut. That a split has no rows, or train fewer than two classes, always has the severity `stop`.
    """
    splits = {split: survey(part) for split, part in rows.items()}
    counts = splits["train"].label_counts()
    found: list[tuple[Check, str, int, Mapping[str, Sequence[str]]]] = []
    found += _no_rows(splits) + _one_class(len(splits["train"]), sorted(counts), multi_label=multi_label)
    found += _unusable(unusable, "empty_text", "an empty or non-string text")
    found += _unusable(unusable, "missing_label", "no usable label")
    found += _unseen(splits, counts)
    found += _broken(splits)
    again = repeated(splits.values())
    alike = {split: [part[row] for row in part.with_keys(again)] for split, part in splits.items()}
    found += _duplicates(alike) + _conflicts(alike) + _overlaps(alike) + _imbalance(counts)
    if lengths is not None and max_length is not None:
        found += _truncation(splits, lengths, max_length)
    long = {split: part.among(part.facts.long) for split, part in splits.items()}
    found += _by_row(splits, "long_rows", long, f"more than {LONG_TEXT:,} characters")
    order = get_args(Check)
    return [
        Finding(check, getattr(checks, check, "stop"), sentence, count, places)
        for check, sentence, count, places in sorted(found, key=lambda entry: order.index(entry[0]))
    ]


_Found = list[tuple[Check, str, int, Mapping[str, Sequence[str]]]]


def _no_rows(splits: Splits) -> _Found:
    empty = [split for split, rows in splits.items() if not len(rows)]
    return [("no_rows", f"no usable rows in {' and '.join(empty)}", len(empty), {})] if empty else []


def _one_class(rows: int, names: Sequence[str], *, multi_label: bool) -> _Found:
    if not rows or len(names) >= (1 if multi_label else 2):
        return []
    what = f'all {rows:,} training rows have the label "{names[0]}"' if names else "no training row has a label"
    return [("one_class", what, 1, {})]


def _unusable(
    unusable: Mapping[SplitName, Sequence[Unusable]], check: Literal["empty_text", "missing_label"], what: str
) -> _Found:
    entries = {split: [entry for entry in rows if entry.check == check] for split, rows in unusable.items()}
    entries = {split: listed for split, listed in entries.items() if listed}
    if not entries:
        return []
    reasons = Counter(entry.reason for listed in entries.values() for entry in listed)
    count = reasons.total()
    verb = "has" if count == 1 else "have"
    said = ", ".join(f"{reason}: {number:,}" for reason, number in reasons.most_common(3))
    more = ", ..." if len(reasons) > 3 else ""
    sentence = f"{_rows(count)} {verb} {what} ({said}{more}) in {_counts(entries)}"
    return [(check, sentence, count, {split: [entry.place for entry in listed] for split, listed in entries.items()})]


def _unseen(splits: Splits, seen: Collection[str]) -> _Found:
    names: dict[str, None] = {}
    for rows in splits.values():
        present, first = np.unique(rows.sets, return_index=True)
        for place in present[np.argsort(first)].tolist():
            names.update({label: None for label in rows.facts.label_sets[place] if label not in seen})
    shown = ", ".join(f'"{name}"' for name in list(names)[:5]) + (", ..." if len(names) > 5 else "")
    held = {split: _with_labels(rows, names) for split, rows in splits.items()}
    return _by_row(splits, "unseen_label", held, f"a label that no training row has: {shown}")


def _with_labels(rows: Rows, names: Collection[str]) -> NDArray[np.int64]:
    """Return, ascending, the rows that have one of the labels `names`."""
    holding = [place for place, labels in enumerate(rows.facts.label_sets) if any(name in names for name in labels)]
    return np.flatnonzero(np.isin(rows.sets, holding)) if holding else np.zeros(0, np.int64)


def _by_row(splits: Splits, check: Check, held: Mapping[SplitName, NDArray[np.int64]], what: str) -> _Found:
    places = {str(split): _places(splits[split], rows) for split, rows in held.items() if len(rows)}
    count = sum(len(listed) for listed in places.values())
    verb = "has" if count == 1 else "have"
    return [(check, f"{_rows(count)} {verb} {what} in {_counts(places)}", count, places)] if count else []


def _places(rows: Rows, which: NDArray[np.int64]) -> list[str]:
    return [rows[row].place for row in which.tolist()]


def _broken(splits: Splits) -> _Found:
    names = {label for rows in splits.values() for labels in rows.facts.label_sets for label in labels}
    broken = {name for name in names if is_broken(name)}
    held = {
        split: np.union1d(rows.among(rows.facts.broken), _with_labels(rows, broken)) for split, rows in splits.items()
    }
    return _by_row(splits, "broken_encoding", held, "replacement or control characters, or a wrong decoding")


def _duplicates(alike: Alike) -> _Found:
    places: dict[str, list[str]] = {}
    for split, rows in alike.items():
        first: dict[str, str] = {}
        for row in rows:
            if first.setdefault(row.key, row.place) != row.place:
                places.setdefault(split, []).append(f"{row.place} = {first[row.key]}")
    count = sum(len(listed) for listed in places.values())
    verb = "repeats" if count == 1 else "repeat"
    sentence = f"{_rows(count)} {verb} the text of an earlier row of the same split in {_counts(places)}"
    return [("duplicates", sentence, count, places)] if count else []


def _conflicts(alike: Alike) -> _Found:
    places: dict[str, list[str]] = {}
    texts = 0
    for split, rows in alike.items():
        labels: dict[str, set[Labels]] = {}
        for row in rows:
            labels.setdefault(row.key, set()).add(row.labels)
        clashing = {key for key, names in labels.items() if len(names) > 1}
        texts += len(clashing)
        if clashing:
            places[split] = [f"{row.place} {' | '.join(row.labels)}" for row in rows if row.key in clashing]
    what = "1 text stands" if texts == 1 else f"{texts:,} texts stand"
    sentence = f"{what} under two or more labels within one split, rows in {_counts(places)}"
    return [("conflicting_labels", sentence, texts, places)] if texts else []


def _overlaps(alike: Alike) -> _Found:
    first: dict[str, list[tuple[SplitName, str]]] = {}
    places: dict[str, list[str]] = {}
    between: Counter[str] = Counter()
    for split, rows in alike.items():
        for row in rows:
            earlier = [(other, place) for other, place in first.get(row.key, []) if other != split]
            if earlier:
                places.setdefault(split, []).append(f"{row.place} = {earlier[0][1]}")
                between.update(f"{other} and {split}" for other, _ in earlier)
            if all(other != split for other, _ in first.get(row.key, [])):
                first.setdefault(row.key, []).append((split, row.place))
    count = sum(len(listed) for listed in places.values())
    said = ", ".join(f"{pair}: {number:,}" for pair, number in between.items())
    verb = "stands" if count == 1 else "stand"
    return (
        [("split_overlap", f"{_rows(count)} also {verb} in an earlier split ({said})", count, places)] if count else []
    )


def _imbalance(counts: Counter[str]) -> _Found:
    few = sorted((count, label) for label, count in counts.items() if count < FEW_ROWS)
    said = []
    if few:
        named = ", ".join(f'"{label}" {count}' for count, label in few[:5]) + (", ..." if len(few) > 5 else "")
        classes = "1 class has" if len(few) == 1 else f"{len(few):,} classes have"
        said.append(f"{classes} fewer than {FEW_ROWS} training rows ({named})")
    if counts and max(counts.values()) > LARGEST_RATIO * min(counts.values()):
        (large, most), (small, least) = (
            counts.most_common(1)[0],
            min(counts.items(), key=lambda item: (item[1], item[0])),
        )
        said.append(f'the largest class "{large}" has {most:,} training rows, the smallest "{small}" {least:,}')
    return [("imbalance", "; ".join(said), max(len(few), 1), {})] if said else []


def _truncation(splits: Splits, lengths: Mapping[SplitName, NDArray[Any]], max_length: int) -> _Found:
    places: dict[str, list[str]] = {}
    said = []
    for split, rows in splits.items():
        cut = np.flatnonzero(lengths[split] > max_length)
        if len(cut) > CUT_SHARE * len(rows):
            said.append(f"{len(cut) / len(rows):.1%} of {split} ({len(cut):,} of {len(rows):,} rows)")
            places[split] = _places(rows, cut)
    count = sum(len(listed) for listed in places.values())
    sentence = f"longer than encoder.max_length = {max_length} tokens: {', '.join(said)}"
    return [("truncation", sentence, count, places)] if said else []


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _counts(listed: Mapping[Any, Sequence[object]]) -> str:
    return ", ".join(f"{split} ({len(rows):,})" for split, rows in listed.items())
