"""From a recipe's `[data]` section to checked, split sentences of tagged tokens, in IOB2."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.data.checked import checked_rows
from peftlab.data.conll import read_tagged
from peftlab.data.examples import Example, Parsed, Unusable, text_key
from peftlab.data.labelled import stop_at
from peftlab.data.readers import LISTED, Role, Table
from peftlab.data.rows import SplitName
from peftlab.data.sources import Reading, find_source
from peftlab.data.tag_schemes import Scheme, find_scheme, misplaced, split_tag, tag_names, to_iob2
from peftlab.errors import DataError
from peftlab.recipe.records import Data
from peftlab.runs.files import write_json

ENDINGS = tuple(f"{ending}{packed}" for ending in (".jsonl", ".conll", ".txt") for packed in ("", ".gz"))

Tags = tuple[str, ...]


@dataclass(frozen=True)
class TaggedSplit:
    """The sentences of one split, in file order: `tokens` and, of the same lengths, `tags` in IOB2.

    `ids`: the id column, else ``<file name>:<line>``.
    """

    name: SplitName
    ids: Sequence[str]
    tokens: Sequence[tuple[str, ...]]
    tags: Sequence[Tags]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class TaggedSplits:
    """The three splits of one run. `tag_names`: O, then B- and I- of each type. The rest as in `Splits`."""

    train: TaggedSplit
    validation: TaggedSplit
    test: TaggedSplit
    tag_names: tuple[str, ...]
    source: Mapping[str, Any]
    fingerprint: str
    report: Mapping[str, Any]


def load_tagged(
    data: Data,
    *,
    recipe_path: Path,
    seed: int,
    scheme: Scheme | Literal["auto"],
    characters: bool,
    report_path: Path | None = None,
) -> TaggedSplits:
    """Read, check and split the sentences that `data` asks for, with their tags turned into IOB2.

    Columns are `tokens` and `tags` unless `data.text` and `data.label` name others. `characters` says that every token
    must be one character. The checks are those of texts and labels, a sentence's labels being the types of its
    entities. Raises DataError for rows that cannot be read, and one for all findings of severity `stop` together.
    """
    from peftlab.data.entities.generate import entity_source

    reading = Reading(_wanted(data), read_tagged, entity_source, ENDINGS)
    source = find_source(data, recipe_path=recipe_path, reading=reading)
    raw = {split: _sentences(table, characters=characters) for split, table in source.tables.items()}
    found: Scheme = scheme if scheme != "auto" else find_scheme(tags for _, tags in raw["train"].values())
    _check_tags(source.tables, raw, found, asked=scheme)
    sentences = {
        split: {place: (t, to_iob2(g, found)) for place, (t, g) in rows.items()} for split, rows in raw.items()
    }
    parsed = {split: _parsed(table, sentences[split]) for split, table in source.tables.items()}
    checked = checked_rows(source, parsed, data, seed=seed, labels="many")
    # By the row itself: two files of one name in two folders have the same places.
    own = {id(row): sentences[split][row.place] for split, part in parsed.items() for row in part.examples}
    made = {split: _split(split, part, [own[id(row)] for row in part]) for split, part in checked.rows.items()}
    fingerprint = _fingerprint(made)
    report = checked.report | {"fingerprint": fingerprint}
    report["tag_scheme"] = found
    report["notes"] += _converted(found)
    if report_path is not None:
        write_json(report_path, report)
    stop_at(checked.findings, report_path)
    return TaggedSplits(
        **made,
        tag_names=tag_names(checked.label_names),
        source=source.description,
        fingerprint=fingerprint,
        report=report,
    )


def with_notes(splits: TaggedSplits, notes: Sequence[str], report_path: Path | None) -> TaggedSplits:
    """Return `splits` with `notes` behind those of its report, which is written again."""
    report = {**splits.report, "notes": [*splits.report["notes"], *notes]}
    if report_path is not None and notes:
        write_json(report_path, report)
    return replace(splits, report=report)


def gold(splits: TaggedSplits, split: TaggedSplit) -> NDArray[np.int64]:
    """Return the indices of all tags of `split`, one sentence behind the other, [tokens]."""
    index = {name: place for place, name in enumerate(splits.tag_names)}
    return np.asarray([index[tag] for tags in split.tags for tag in tags], np.int64)


def _wanted(data: Data) -> dict[Role, str]:
    columns: dict[Role, str] = {
        "text": "tokens" if data.text == "text" else data.text,
        "label": "tags" if data.label == "label" else data.label,
    }
    return columns | ({"id": data.id} if data.id is not None else {})


def _sentences(table: Table, *, characters: bool) -> dict[str, tuple[tuple[str, ...], Tags]]:
    """Return tokens and tags of each usable row by its place; DataError for rows whose lists do not fit."""
    rows: dict[str, tuple[tuple[str, ...], Tags]] = {}
    bad: list[str] = []
    for line, tokens, tags in zip(table.lines, table.columns["text"], table.columns["label"], strict=True):
        place = f"{table.name}:{line}"
        if (reason := _unfit(tokens, tags, characters=characters)) is not None:
            bad.append(f"{place}: {reason}")
        elif tokens:
            rows[place] = (tuple(tokens), tuple(tags))  # type: ignore[arg-type] # both are lists of strings
    _refuse(bad)
    return rows


def _unfit(tokens: object, tags: object, *, characters: bool) -> str | None:
    for name, values in (("tokens", tokens), ("tags", tags)):
        if not isinstance(values, list | tuple):
            return f"{name} is {_kind(values)}; expected a list of strings"
        for place, value in enumerate(values):
            if not isinstance(value, str):
                return f"{name}[{place}] is {_kind(value)}; expected a string"
    assert isinstance(tokens, list | tuple) and isinstance(tags, list | tuple)  # noqa: PT018 seen above
    if len(tokens) != len(tags):
        return f"{len(tokens)} tokens and {len(tags)} tags; every token needs one tag"
    for place, token in enumerate(tokens):
        if not token.strip():
            return f"tokens[{place}] is empty; remove it and its tag"
        if characters and len(token) > 1:
            return f'tokens[{place}] is "{token}"; with task.units = "characters" every token is one character'
    return None


def _kind(value: object) -> str:
    return "absent" if value is None else f"of type {type(value).__name__}"


def _check_tags(
    tables: Mapping[SplitName, Table],
    raw: Mapping[SplitName, Mapping[str, tuple[tuple[str, ...], Tags]]],
    scheme: Scheme,
    *,
    asked: str,
) -> None:
    bad = []
    for split in tables:
        for place, (tokens, tags) in raw[split].items():
            if (wrong := misplaced(tags, scheme)) is not None:
                bad.append(f'{place}: token {wrong.place + 1}, "{tokens[wrong.place]}": {wrong.reason}')
    advice = f"correct the tags, or set task.scheme, which is {asked}"
    _refuse(bad, advice + (f" and was found to be {scheme}" if asked == "auto" else ""))


def _refuse(bad: Sequence[str], advice: str = "correct the rows") -> None:
    if not bad:
        return
    if len(bad) == 1:
        raise DataError(f"data: {bad[0]}; {advice}")
    listed = "".join(f"\n  {line}" for line in bad[:LISTED])
    which = f"the first {LISTED} are" if len(bad) > LISTED else "they are"
    raise DataError(f"data: {len(bad):,} sentences cannot be used; {advice}; {which}:{listed}")


def _parsed(table: Table, sentences: Mapping[str, tuple[tuple[str, ...], Tags]]) -> Parsed:
    """Return the rows as the checks see them: the labels of a sentence are the types of its entities."""
    ids = table.columns.get("id")
    examples, unusable = [], []
    for row, line in enumerate(table.lines):
        place = f"{table.name}:{line}"
        if place not in sentences:
            unusable.append(Unusable(place, "empty_text", "a sentence without tokens"))
            continue
        tokens, tags = sentences[place]
        types = tuple(sorted({split_tag(tag)[1] for tag in tags} - {""}))
        text = " ".join(tokens)
        name = str(ids[row]) if ids is not None and str(ids[row] or "").strip() else place
        examples.append(Example(place, name, text, None, types, text_key(text)))
    repeated = sum(count - 1 for count in Counter(row.id for row in examples).values())
    return Parsed(examples, unusable, (), repeated)


def _split(name: SplitName, rows: Sequence[Example], found: Sequence[tuple[tuple[str, ...], Tags]]) -> TaggedSplit:
    return TaggedSplit(name, [row.id for row in rows], [tokens for tokens, _ in found], [tags for _, tags in found])


def _converted(scheme: Scheme) -> list[str]:
    return [] if scheme == "IOB2" else [f"tags converted from {scheme} to IOB2"]


def _fingerprint(splits: Mapping[SplitName, TaggedSplit]) -> str:
    digest = hashlib.sha256()
    for split in splits.values():
        for name, tokens, tags in zip(split.ids, split.tokens, split.tags, strict=True):
            line = json.dumps([split.name, name, tokens, tags], ensure_ascii=False)
            digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
