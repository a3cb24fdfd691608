"""From a recipe's `[data]` section to checked, split queries with what answers them, and their candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.candidates import read_candidates
from peftlab.data.checked import CheckedRows
from peftlab.data.examples import Example, text_key
from peftlab.data.labelled import load_labelled, stop_at
from peftlab.data.match_rows import Candidates, MatchSplit, MatchSplits, fingerprint
from peftlab.data.readers import LISTED
from peftlab.data.rows import Split, SplitName, Splits
from peftlab.data.sources import SPLITS, Source, find_file, find_source
from peftlab.data.text_pairs import Reading, TokenLengths, check_pairs, second
from peftlab.errors import DataError
from peftlab.recipe.records import Data
from peftlab.runs.files import write_json

PAIR = "pair"
"""Column of the text that answers a query, where `data.pair` names none."""


def load_pairs(data: Data, candidates: str | None, reading: Reading) -> MatchSplits:
    """Read, check and split rows of two columns: a query (`data.text`) and a text that answers it (`data.pair`).

    The candidates are those of the file `candidates`, else every distinct answer of the three splits. Rows of one
    query stay in one split. Raises DataError, naming rows, for rows without a query or an answer, an answer that is
    no candidate, and fewer than two candidates.
    """
    named = data.model_copy(update={"pair": data.pair or PAIR})
    source = _find_pairs(named, reading.recipe_path)
    found = check_pairs(
        source, data, reading, partial(_longer, reading.token_lengths) if reading.token_lengths else None
    )
    return _pair_splits(data, candidates, reading, source, found)


def _pair_splits(
    data: Data,
    candidates: str | None,
    reading: Reading,
    source: Source,
    found: CheckedRows,
) -> MatchSplits:
    rows, report = found.rows, found.report
    if reading.report_path is not None:
        write_json(reading.report_path, report)
    stop_at(found.findings, reading.report_path)
    if candidates is not None:
        path = find_file(candidates, recipe_path=reading.recipe_path, key="candidates")
        listed = read_candidates(path, ("pair", data.pair or PAIR))
        index = {row.key: place for place, row in enumerate(listed)}
        texts = [row.text for row in listed]
        _refuse_absent(rows, index, path)
        about = f"the {len(texts):,} of {path.name}"
    else:
        answers = {text_key(second(row)): second(row) for split in SPLITS for row in reversed(rows[split])}
        ordered = sorted(answers)
        index = {key: place for place, key in enumerate(ordered)}
        texts = [answers[key] for key in ordered]
        about = f"the {len(texts):,} distinct answers of the three splits"
        if len(texts) < 2:
            raise DataError(
                f"data.{PAIR}: all {sum(map(len, rows.values())):,} rows have the same answer, which is always ranked "
                f"first (such as {rows['train'][0].place}); expected at least two answers, or set task.candidates"
            )
    pool = Candidates(texts, np.arange(len(texts), dtype=np.int64))
    known: dict[str, set[int]] = {}
    for split in SPLITS:
        for row in rows[split]:
            known.setdefault(text_key(row.text), set()).add(index[text_key(second(row))])
    made = {split: _pair_split(split, rows[split], index, known, pool) for split in SPLITS}
    return _finished(made, pool, about, source.description, report, reading)


def _pair_split(
    name: SplitName,
    rows: Sequence[Example],
    index: Mapping[str, int],
    known: Mapping[str, set[int]],
    pool: Candidates,
) -> MatchSplit:
    return MatchSplit(
        name=name,
        ids=[row.id for row in rows],
        texts=[row.text for row in rows],
        pairs=[second(row) for row in rows],
        groups=np.asarray([index[text_key(second(row))] for row in rows], np.int64),
        relevant=[tuple(sorted(known[text_key(row.text)])) for row in rows],
        candidates=pool,
    )


def load_by_label(data: Data, reading: Reading) -> MatchSplits:
    """Make pairs of a labelled set: the text that answers a query is another of its label.

    A training row is paired with the next one of its label in an order drawn by `train.seed`, a row of another split
    with a training row of its label. The candidates are one training row of each label, drawn by `data.split_seed`
    (else `train.seed`). Raises DataError as `load_labelled`, and for labels with fewer than two training rows.
    """
    splits = load_labelled(
        data,
        recipe_path=reading.recipe_path,
        seed=reading.seed,
        multi_label=False,
        max_length=reading.max_length,
        report_path=reading.report_path,
        token_lengths=reading.token_lengths,
    )
    by_label = [np.flatnonzero(splits.train.labels == label) for label in range(len(splits.label_names))]
    _refuse_single(splits, by_label)
    seed = data.split_seed if data.split_seed is not None else reading.seed
    generator = np.random.default_rng([seed, 0])
    shown = [int(generator.choice(rows)) for rows in by_label]
    texts = splits.train.texts
    pool = Candidates([texts[row] for row in shown], np.arange(len(shown), dtype=np.int64))
    made = {}
    for place, split in enumerate((splits.train, splits.validation, splits.test), start=1):
        partners = _partners(split, by_label, np.random.default_rng([reading.seed, place]))
        made[split.name] = MatchSplit(
            name=split.name,
            ids=split.ids,
            texts=split.texts,
            pairs=[texts[row] for row in partners],
            groups=split.labels,
            relevant=[(int(label),) for label in split.labels],
            candidates=pool,
        )
    about = f"{len(shown):,}: a training row of each label, drawn by seed {seed}"
    return _finished(made, pool, about, splits.source, dict(splits.report), reading)


def _partners(split: Split, by_label: Sequence[NDArray[np.int64]], generator: np.random.Generator) -> list[int]:
    """Return for each row of `split` another training row of its label."""
    if split.name != "train":
        return [int(generator.choice(by_label[label])) for label in split.labels]
    partners = np.empty(len(split), np.int64)
    for rows in by_label:
        order = generator.permutation(rows)
        partners[order] = np.roll(order, 1)
    return [int(row) for row in partners]


def _find_pairs(data: Data, recipe_path: Path) -> Source:
    """Find the tables of `data`, whose `pair` is set; rows of pairs have no label, so the text is read in its place."""
    if data.train is None and data.source is not None and data.source.startswith("builtin:"):
        from peftlab.data.questions.generate import question_source

        return question_source(data)
    return find_source(data.model_copy(update={"label": data.text}), recipe_path=recipe_path)


def _longer(token_lengths: TokenLengths, rows: Sequence[Example]) -> NDArray[np.int64]:
    """Return the tokens of the longer text of each row."""
    return np.maximum(
        np.asarray(token_lengths([row.text for row in rows], None), np.int64),
        np.asarray(token_lengths([second(row) for row in rows], None), np.int64),
    )


def _refuse_absent(rows: Mapping[SplitName, Sequence[Example]], index: Mapping[str, int], path: Path) -> None:
    absent = [row.place for split in SPLITS for row in rows[split] if text_key(second(row)) not in index]
    if absent:
        more = f" and {len(absent) - LISTED:,} more" if len(absent) > LISTED else ""
        raise DataError(
            f"{path}: lacks the answers of {len(absent):,} rows ({', '.join(absent[:LISTED])}{more}), which could "
            "never be found; add them to the candidates, or correct the rows"
        )


def _refuse_single(splits: Splits, by_label: Sequence[NDArray[np.int64]]) -> None:
    single = [name for name, rows in zip(splits.label_names, by_label, strict=True) if len(rows) < 2]
    if single:
        more = f" and {len(single) - LISTED:,} more" if len(single) > LISTED else ""
        raise DataError(
            f"data: labels with fewer than two training rows: {', '.join(single[:LISTED])}{more}; a text must find "
            "another of its label, so add rows, or remove these labels"
        )


def _finished(
    made: Mapping[SplitName, MatchSplit],
    pool: Candidates,
    about: str,
    source: Mapping[str, Any],
    report: dict[str, Any],
    reading: Reading,
) -> MatchSplits:
    """Put the splits together; their fingerprint and a note on the candidates go into the report."""
    train, validation, test = (made[name] for name in SPLITS)
    digest = fingerprint((train, validation, test), pool)
    report |= {"fingerprint": digest, "notes": [*report["notes"], f"candidates: {about}"]}
    if reading.report_path is not None:
        write_json(reading.report_path, report)
    return MatchSplits(train, validation, test, about, source, digest, report)
