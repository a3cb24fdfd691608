"""From a recipe's `[data]` section to checked, split sources with their targets, such as texts with translations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.data.decoding import decode, read_bytes, unpack
from peftlab.data.examples import Example
from peftlab.data.labelled import stop_at
from peftlab.data.readers import ENDINGS, Role, Table, read_table
from peftlab.data.rows import SplitName
from peftlab.data.sources import SPLITS, find_source
from peftlab.data.sources import Reading as Source
from peftlab.data.text_pairs import Reading, TokenLengths, check_pairs, second
from peftlab.errors import DataError
from peftlab.recipe.records import Data
from peftlab.runs.files import write_json

SOURCE, TARGET = "source", "target"
"""Columns of sources and targets, where `data.text` and `data.pair` name no others."""
_SHOWN = 3

Tokenize = Literal["13a", "zh", "char", "none"]


@dataclass(frozen=True)
class Scoring:
    """How outputs are compared with targets: sacrebleu's tokenizer of this name, and whether case counts."""

    tokenize: Tokenize
    lowercase: bool


@dataclass(frozen=True)
class PairedSplit:
    """The rows of one split, in file order. `ids`: the id column, else ``<file name>:<line>``."""

    name: SplitName
    ids: Sequence[str]
    sources: Sequence[str]
    targets: Sequence[str]

    def __len__(self) -> int:
        return len(self.sources)

    def joined(self, other: PairedSplit) -> PairedSplit:
        """Return this split with the rows of `other` behind its own."""
        return PairedSplit(
            self.name,
            [*self.ids, *other.ids],
            [*self.sources, *other.sources],
            [*self.targets, *other.targets],
        )


@dataclass(frozen=True)
class PairedSplits:
    """The three splits of one run, and how their targets are scored. The rest as in `Splits`."""

    train: PairedSplit
    validation: PairedSplit
    test: PairedSplit
    scoring: Scoring
    source: Mapping[str, Any]
    fingerprint: str
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Targets:
    """What is known of targets beside the rows: tokens of each text, where there is a tokenizer, and most of them."""

    max_length: int
    token_lengths: TokenLengths | None = None
    tokenize: Tokenize | Literal["auto"] = "auto"
    lowercase: bool = False


def load_paired(data: Data, reading: Reading, targets: Targets) -> PairedSplits:
    """Read, check and split rows of a source and a target, from tables or from two files of lines side by side.

    `data.text` and `data.pair` name the columns, or the endings of the files. Rows of one source stay in one split. The
    report says of each split how many texts are cut, with rows. Raises DataError for rows without a source or a target,
    files of lines of unlike length, and one for all findings of severity `stop` together.
    """
    from peftlab.data.sentences.generate import sentence_source

    wanted = wanted_columns(data)
    endings = (".jsonl", ".jsonl.gz", f".{wanted['text']}", f".{wanted['text']}.gz")
    source = find_source(
        data, recipe_path=reading.recipe_path, reading=Source(wanted, read_pairs, sentence_source, endings)
    )
    of_sources = partial(_lengths, reading.token_lengths) if reading.token_lengths is not None else None
    found = check_pairs(source, data, reading, of_sources)
    made = {split: _split(split, found.rows[split]) for split in SPLITS}
    notes = []
    if of_sources is not None and reading.max_length is not None:
        notes += _cut(found.rows, of_sources, reading.max_length, "sources", "encoder.max_length")
    if targets.token_lengths is not None:
        of_targets = partial(_lengths, targets.token_lengths, of_second=True)
        notes += _cut(found.rows, of_targets, targets.max_length, "targets", "task.max_target_length")
    digest = _fingerprint(made)
    report = found.report | {"fingerprint": digest, "notes": [*found.report["notes"], *notes]}
    if reading.report_path is not None:
        write_json(reading.report_path, report)
    stop_at(found.findings, reading.report_path)
    tokenize = targets.tokenize if targets.tokenize != "auto" else _tokenize(made["train"].targets)
    return PairedSplits(
        **made,
        scoring=Scoring(tokenize, targets.lowercase),
        source=source.description,
        fingerprint=digest,
        report=report,
    )


def wanted_columns(data: Data) -> dict[Role, str]:
    """Return the columns of sources, targets and perhaps ids by role."""
    columns: dict[Role, str] = {"text": SOURCE if data.text == "text" else data.text, "pair": data.pair or TARGET}
    return columns | ({"id": data.id} if data.id is not None else {})


def read_pairs(path: Path, wanted: Mapping[Role, str]) -> Table:
    """Read a table, or a file of lines with the file of its targets beside it, whose ending is `wanted["pair"]`.

    Raises DataError as `read_table`, where the second file is not there, and where one has more lines.
    """
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if ending in ENDINGS or path.is_dir():
        return read_table(path, wanted)
    if "id" in wanted:
        raise DataError(f"{path}: a file of lines has no ids; remove data.id")
    other = _beside(path, wanted["pair"])
    (digest, sources), (other_digest, targets) = _lines(path), _lines(other)
    if len(sources) != len(targets):
        longer, lines = (path, len(targets)) if len(sources) > len(targets) else (other, len(sources))
        raise DataError(
            f"{path.name} has {len(sources):,} lines and {other.name} {len(targets):,}, so that from "
            f"{longer.name}:{lines + 1} on lines have no partner; every source needs its target on the same line"
        )
    both = hashlib.sha256(f"{digest}{other_digest}".encode()).hexdigest()
    return Table(
        path.name, f"{path.resolve()} and {other.name}", both, range(1, len(sources) + 1), _columns(sources, targets)
    )


def _columns(sources: Sequence[object], targets: Sequence[object]) -> dict[Role, Sequence[object]]:
    return {"text": sources, "pair": targets}


def _beside(path: Path, ending: str) -> Path:
    bare = Path(path.name.removesuffix(".gz")).stem
    places = [path.with_name(f"{bare}.{ending.removeprefix('.')}{packed}") for packed in ("", ".gz")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(
            f"{path}: is read as a file of lines, a source on each, and there is no {places[0].name} with the targets "
            'beside it; name its ending, as in data.pair = "en" for train.de and train.en'
        )
    return found


def _lines(path: Path) -> tuple[str, list[str]]:
    """Return the SHA-256 of a file and its lines."""
    content = read_bytes(path)
    lines = decode(path, unpack(path, content) if path.name.lower().endswith(".gz") else content).split("\n")
    if lines[-1] == "":
        lines.pop()
    return hashlib.sha256(content).hexdigest(), [line.rstrip("\r") for line in lines]


def _lengths(token_lengths: TokenLengths, rows: Sequence[Example], *, of_second: bool = False) -> NDArray[np.int64]:
    texts = [second(row) if of_second else row.text for row in rows]
    return np.asarray(token_lengths(texts, None), np.int64)


def _cut(rows: Mapping[SplitName, Sequence[Example]], lengths: Any, most: int, what: str, key: str) -> list[str]:
    """Return a sentence for each split in which some of `what` are longer than `most` tokens."""
    notes = []
    for split in SPLITS:
        places = [rows[split][row].place for row in np.flatnonzero(lengths(rows[split]) > most).tolist()]
        if places:
            more = ", ..." if len(places) > _SHOWN else ""
            notes.append(
                f"{split}: {len(places):,} of {len(rows[split]):,} {what} are longer than {key} = {most} tokens and "
                f"are cut there ({', '.join(places[:_SHOWN])}{more})"
            )
    return notes


def _split(name: SplitName, rows: Sequence[Example]) -> PairedSplit:
    return PairedSplit(name, [row.id for row in rows], [row.text for row in rows], [second(row) for row in rows])


def _tokenize(targets: Sequence[str]) -> Tokenize:
    """Return sacrebleu's tokenizer for these texts: `zh` where most of them hold Chinese characters, else `13a`."""
    chinese = sum(any("\u4e00" <= character <= "\u9fff" for character in text) for text in targets)
    return "zh" if 2 * chinese > len(targets) else "13a"


def _fingerprint(splits: Mapping[SplitName, PairedSplit]) -> str:
    digest = hashlib.sha256()
    for split in splits.values():
        for row in zip(split.ids, split.sources, split.targets, strict=True):
            line = json.dumps([split.name, *row], ensure_ascii=False)
            digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
