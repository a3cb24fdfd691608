"""Scores of a tagger on one split: strict entity-level F1 by seqeval, token level beside it, tables for both.

An entity counts as found where its first token, its last one and its type are all right (seqeval's strict mode with
IOB2, Nakayama 2018; the measure of CoNLL-2003, Tjong Kim Sang and De Meulder 2003). Tags are IOB2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import MissingPackage
from peftlab.evaluation.intervals import Interval, bootstrap_weighted, percentiles

METRICS = ("entity_f1", "entity_precision", "entity_recall", "macro_entity_f1", "token_accuracy", "token_f1")
"""Micro averages over entities; the mean of the types' F1; share of tokens tagged right; F1 of tokens not tagged O."""
RESAMPLES = 1000

Sequences = Sequence[Sequence[str]]
Row = tuple[str, float | None, float | None, float | None, int]


@dataclass(frozen=True)
class EntityScores:
    """Metrics with their intervals, and rows of (name, precision, recall, F1, gold number) for types and for tags."""

    metrics: Mapping[str, Interval]
    types: tuple[Row, ...]
    tags: tuple[Row, ...]
    facts: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: `metrics`, `tables` and `facts` as in result.json."""
        heads = ["precision", "recall", "F1"]
        return {
            "metrics": {name: interval.to_dict() for name, interval in self.metrics.items()},
            "tables": [
                {
                    "title": "Entities of the test split, right only as a whole",
                    "columns": ["type", *heads, "test entities"],
                    "rows": [list(row) for row in self.types],
                },
                {
                    "title": "Tokens of the test split",
                    "columns": ["tag", *heads, "test tokens"],
                    "rows": [list(row) for row in self.tags],
                },
            ],
            "facts": dict(self.facts),
        }


def point_metrics(gold: Sequences, predicted: Sequences) -> dict[str, float]:
    """Return METRICS without intervals; `gold` and `predicted` are tags in IOB2, sentence by sentence."""
    values = _entity_metrics(gold, predicted)
    return values | _token_metrics(_token_counts(gold, predicted, _tags(gold, predicted)))


def score_entities(gold: Sequences, predicted: Sequences, *, seed: int = 0) -> EntityScores:
    """Return METRICS with 95 % percentile bootstrap intervals over sentences, and the tables."""
    values, n = point_metrics(gold, predicted), len(gold)
    types, tags = _types(gold, predicted), _tags(gold, predicted)
    entities, tokens = _entity_counts(gold, predicted, types), _token_counts(gold, predicted, tags)
    flat = np.concatenate([entities.reshape(n, -1), tokens.reshape(n, -1)], axis=1).astype(np.float64)
    split = entities[0].size if n else 0

    def statistics(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = drawn @ flat
        found = [
            _entity_statistics(sums[:, :split].reshape(len(sums), -1, 3)),
            _token_statistics(sums[:, split:].reshape(len(sums), -1, 3)),
        ]
        return np.concatenate(found, axis=1)

    low, high = percentiles(bootstrap_weighted(statistics, n, resamples=RESAMPLES, seed=seed))
    return EntityScores(
        metrics=MappingProxyType(
            {
                name: Interval(values[name], float(low[place]), float(high[place]), n)
                for place, name in enumerate(METRICS)
            }
        ),
        types=_type_rows(gold, predicted),
        tags=tuple(_row(tag, counts) for tag, counts in zip(tags, tokens.sum(0), strict=True)),
        facts=MappingProxyType(
            {
                "entities scored by": f"seqeval {metadata.version('seqeval')}, mode strict, scheme IOB2",
                "intervals": f"percentile bootstrap over sentences, {RESAMPLES:,} resamples",
            }
        ),
    )


def f1_difference(gold: Sequences, before: Sequences, after: Sequences, *, seed: int = 0) -> Interval:
    """Return the entity F1 of `after` minus that of `before`, two taggers of the same sentences.

    With its 95 % percentile interval from resampling sentences, both taggers' together.
    """
    types = sorted({*_types(gold, before), *_types(gold, after)})
    counts = [_entity_counts(gold, told, types).astype(np.float64) for told in (before, after)]

    def statistics(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        first, second = (_entity_statistics(np.tensordot(drawn, own, axes=1))[:, 0] for own in counts)
        return second - first

    n = len(gold)
    low, high = percentiles(bootstrap_weighted(statistics, n, resamples=RESAMPLES, seed=seed))
    return Interval(float(statistics(np.ones((1, n)))[0]), float(low), float(high), n)


def _entity_metrics(gold: Sequences, predicted: Sequences) -> dict[str, float]:
    v1, iob2 = _seqeval()
    lists = [list(tags) for tags in gold], [list(tags) for tags in predicted]
    precision, recall, f1, _ = v1.precision_recall_fscore_support(*lists, average="micro", scheme=iob2, zero_division=0)
    # A mean over no types would be NaN, with a warning.
    macro = 0.0
    if _types(gold, predicted):
        macro = v1.precision_recall_fscore_support(*lists, average="macro", scheme=iob2, zero_division=0)[2]
    names = METRICS[:4]
    return dict(zip(names, map(float, (f1, precision, recall, macro)), strict=True))


def _seqeval() -> tuple[Any, Any]:
    try:
        from seqeval.metrics import v1
        from seqeval.scheme import IOB2
    except ImportError as error:
        raise MissingPackage(
            'the task tagging needs seqeval, which is not installed; run: pip install "peftlab[tagging]"'
        ) from error
    return v1, IOB2


def _type_rows(gold: Sequences, predicted: Sequences) -> tuple[Row, ...]:
    """Return seqeval's own report: a row a type, then the averages; no row where there is no entity at all."""
    v1, iob2 = _seqeval()
    if not _types(gold, predicted):
        return ()
    report = v1.classification_report(
        [list(tags) for tags in gold],
        [list(tags) for tags in predicted],
        output_dict=True,
        scheme=iob2,
        zero_division=0,
    )
    return tuple(
        (str(name), float(row["precision"]), float(row["recall"]), float(row["f1-score"]), int(row["support"]))
        for name, row in report.items()
    )


def _types(gold: Sequences, predicted: Sequences) -> list[str]:
    from seqeval.scheme import IOB2, Entities

    sides = (Entities([list(tags) for tags in side], scheme=IOB2).unique_tags for side in (gold, predicted))
    return sorted(set().union(*sides))


def _tags(gold: Sequences, predicted: Sequences) -> list[str]:
    """Return the tags that occur, O first in any case."""
    others = {tag for tags in (*gold, *predicted) for tag in tags} - {"O"}
    return ["O", *sorted(others, key=lambda tag: (tag[2:], tag[:1]))]


def _entity_counts(gold: Sequences, predicted: Sequences, types: Sequence[str]) -> NDArray[np.int64]:
    """Return right, predicted and gold entities of each sentence and type, [sentences, types, 3], by seqeval."""
    from seqeval.scheme import IOB2, Entities

    column = {kind: place for place, kind in enumerate(types)}
    counts = np.zeros((len(gold), max(1, len(types)), 3), np.int64)
    found = [Entities([list(tags) for tags in side], scheme=IOB2).entities for side in (gold, predicted)]
    for row, (golden, guessed) in enumerate(zip(*found, strict=True)):
        own, told = ({(one.start, one.end, one.tag) for one in side} for side in (golden, guessed))
        for place, entities in enumerate((own & told, told, own)):
            for _, _, kind in entities:
                counts[row, column[kind], place] += 1
    return counts


def _token_counts(gold: Sequences, predicted: Sequences, tags: Sequence[str]) -> NDArray[np.int64]:
    """Return right, predicted and gold tokens of each sentence and tag, [sentences, tags, 3]; the first tag is O."""
    column = {tag: place for place, tag in enumerate(tags)}
    counts = np.zeros((len(gold), len(tags), 3), np.int64)
    for row, (own, told) in enumerate(zip(gold, predicted, strict=True)):
        for right, guess in zip(own, told, strict=True):
            counts[row, column[right], 2] += 1
            counts[row, column[guess], 1] += 1
            counts[row, column[right], 0] += right == guess
    return counts


def _entity_statistics(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F1, precision, recall and macro F1 of each resample, [resamples, 4], from counts [resamples, types, 3]."""
    right, told, own = (sums[:, :, place].sum(1) for place in range(3))
    by_type = _ratio(2 * sums[:, :, 0], sums[:, :, 1] + sums[:, :, 2])
    return np.stack([_ratio(2 * right, told + own), _ratio(right, told), _ratio(right, own), by_type.mean(1)], axis=1)


def _token_statistics(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    right, told, own = (sums[:, 1:, place].sum(1) for place in range(3))
    return np.stack([_ratio(sums[:, :, 0].sum(1), sums[:, :, 2].sum(1)), _ratio(2 * right, told + own)], axis=1)


def _token_metrics(counts: NDArray[np.int64]) -> dict[str, float]:
    values = _token_statistics(counts.sum(0)[None].astype(np.float64))[0]
    return {name: float(value) for name, value in zip(METRICS[4:], values, strict=True)}


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return above / below, 0 where both are 0, as seqeval's `zero_division=0` does."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0)


def _row(name: str, counts: NDArray[np.int64]) -> Row:
    right, told, own = map(int, counts)
    return (
        name,
        right / told if told else None,
        right / own if own else None,
        2 * right / (told + own) if told + own else None,
        own,
    )
