"""Passages laid end to end into sequences of one length, so that no step is spent on padding.

A sequence is [CLS] and then the running text, with [SEP] behind every passage; one that is cut goes on in the next.
Beside the token ids stand marks: whether a token begins a word, continues one, or is special. Kept on disk and mapped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import DataError, UserError
from peftlab.recipe.pretraining import Corpus, Masking
from peftlab.runs.files import whole_folder, write_json

CONTINUES, BEGINS, SPECIAL = 0, 1, 2
_LINES_IN_BLOCK = 100  # neighbouring lines are held out together, so that no sentence stands on both sides
_AT_ONCE = 2000  # lines tokenised at a time
_RECORD = "packed.json"

Segment = Callable[[str], list[str]]


@dataclass(frozen=True)
class Packed:
    """Training and held-out sequences: token ids and marks, [sequences, length] each; and what was passed over."""

    train: tuple[NDArray[Any], NDArray[np.uint8]]
    held_out: tuple[NDArray[Any], NDArray[np.uint8]]
    lines: int
    passed_over: int
    unknown_share: float

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return int(self.train[0].shape[1])


def segmenter(whole_words: str) -> Segment | None:
    """Return what cuts a line into words, all of its characters kept, or None where the tokenizer's own are enough."""
    if whole_words != "jieba":
        return None
    import rjieba

    cut: Segment = rjieba.cut
    return cut


def pack(
    passages: Iterable[str], tokenizer: Any, corpus: Corpus, masking: Masking, folder: Path, *, seed: int
) -> Packed:
    """Tokenise and pack `passages` into `folder`, whole or not at all; where the same is there already, read it.

    Raises DataError where the text fills no training or no held-out sequence.
    """
    with whole_folder(folder) as target:
        writers = {name: _Stream(target, name, tokenizer, corpus.length) for name in ("train", "held_out")}
        lines = passed_over = 0
        for block, line_block in enumerate(_blocks(passages, _LINES_IN_BLOCK)):
            kept = [line for line in line_block if len(line) >= corpus.least_characters]
            lines += len(kept)
            passed_over += len(line_block) - len(kept)
            name = "held_out" if _draw(seed, block) < corpus.held_out else "train"
            for ids, marks in _tokenised(kept, tokenizer, masking.whole_words):
                writers[name].add(ids, marks)
        counts = {name: writer.close() for name, writer in writers.items()}
        for name, count in counts.items():
            if count == 0:
                raise DataError(
                    f"corpus: the text ({lines:,} lines) fills no {name.replace('_', '-')} sequence of {corpus.length} "
                    "tokens; add text, lower corpus.length, or raise corpus.held_out"
                )
        tokens = sum(writer.tokens for writer in writers.values())
        unknown = sum(writer.unknown for writer in writers.values())
        record = {"length": corpus.length, "sequences": counts, "lines": lines, "passed_over": passed_over}
        write_json(target / _RECORD, record | {"unknown_share": unknown / max(1, tokens)})
    return read_packed(folder, tokenizer)


def is_packed(folder: Path) -> bool:
    """Say whether `folder` holds packed text."""
    return (folder / _RECORD).is_file()


def read_packed(folder: Path, tokenizer: Any) -> Packed:
    """Map what `pack` wrote."""
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))

    def mapped(name: str) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        shape = (record["sequences"][name], record["length"])
        if shape[0] == 0:
            raise UserError(f"{folder} holds no {name} sequences; remove the folder and start anew")
        ids = np.memmap(folder / f"{name}.ids", _id_type(tokenizer), "r", shape=shape)
        return ids, np.memmap(folder / f"{name}.marks", np.uint8, "r", shape=shape)

    return Packed(mapped("train"), mapped("held_out"), record["lines"], record["passed_over"], record["unknown_share"])


class _Stream:
    """Appends passages to the running text of one split and writes whole sequences of it to two files."""

    def __init__(self, folder: Path, name: str, tokenizer: Any, length: int) -> None:
        self.length, self.sequences, self.tokens, self.unknown = length, 0, 0, 0
        self.first, self.last, self.unknown_id = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id
        self.type = _id_type(tokenizer)
        self.files = ((folder / f"{name}.ids").open("wb"), (folder / f"{name}.marks").open("wb"))
        self.waiting: list[tuple[NDArray[Any], NDArray[np.uint8]]] = []
        self.waiting_tokens = 0

    def add(self, ids: NDArray[Any], marks: NDArray[np.uint8]) -> None:
        self.tokens += len(ids)
        self.unknown += int((ids == self.unknown_id).sum())
        self.waiting.append((np.append(ids, self.last), np.append(marks, SPECIAL)))
        self.waiting_tokens += len(ids) + 1
        if self.waiting_tokens > 100 * self.length:
            self._write()

    def _write(self) -> None:
        ids = np.concatenate([part[0] for part in self.waiting])
        marks = np.concatenate([part[1] for part in self.waiting])
        own = self.length - 1
        count = len(ids) // own
        columns = ((self.files[0], ids, self.first, self.type), (self.files[1], marks, SPECIAL, np.uint8))
        for file, values, first, kind in columns:
            rows = np.empty((count, self.length), kind)
            rows[:, 0] = first
            rows[:, 1:] = values[: count * own].reshape(count, own)
            file.write(rows.tobytes())
        self.sequences += count
        self.waiting = [(ids[count * own :], marks[count * own :])]
        self.waiting_tokens = len(ids) - count * own

    def close(self) -> int:
        if self.waiting:
            self._write()
        for file in self.files:
            file.close()
        return self.sequences


def _blocks(passages: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(passages)
    while block := list(islice(rest, size)):
        yield block


def _id_type(tokenizer: Any) -> type[np.uint16] | type[np.int32]:
    return np.uint16 if len(tokenizer) < 1 << 16 else np.int32


def _draw(seed: int, block: int) -> float:
    digest = hashlib.sha256(f"{seed} {block}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _tokenised(lines: list[str], tokenizer: Any, whole_words: str) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
    """Yield ids and marks of each line without special tokens."""
    backend = tokenizer.backend_tokenizer
    segment = segmenter(whole_words)
    for chunk in _blocks(lines, _AT_ONCE):
        for line, encoding in zip(chunk, backend.encode_batch(chunk, add_special_tokens=False), strict=True):
            ids = np.asarray(encoding.ids, np.int32)
            marks = np.full(len(ids), BEGINS, np.uint8)
            if len(ids) and segment is not None:
                marks[1:][_within_words(segment(line), np.asarray(encoding.offsets))] = CONTINUES
            elif len(ids) and whole_words != "off":
                words = np.asarray(encoding.word_ids, np.int32)
                marks[1:][words[1:] == words[:-1]] = CONTINUES
            yield ids, marks


def _within_words(words: list[str], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which pieces but the first begin in the word that the piece before them ends in.

    `offsets`: [pieces, 2], the characters of a line that each piece stands for. Pieces are those of the line as a
    whole, so that a tokenizer that reads words apart from their neighbours as other pieces is masked by words too.
    """
    ends = np.cumsum([len(word) for word in words])
    word_of_start = np.searchsorted(ends, offsets[1:, 0], side="right")
    word_before = np.searchsorted(ends, np.maximum(offsets[:-1, 1] - 1, 0), side="right")
    within: NDArray[np.bool_] = word_of_start == word_before
    return within
