"""Words cut into the pieces of a tokenizer, in overlapping windows where a sentence is longer than one.

A word stands for its first piece, as in Devlin et al. 2019 (section 5.3). Where windows overlap, it is read in the one
in which it has the most context on its shorter side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Tokens, pad
from peftlab.errors import EncoderError

if TYPE_CHECKING:
    import torch

_CHUNK = 2048  # sentences given to the tokenizer at a time


@dataclass(frozen=True)
class WordPieces:
    """Sentences in windows: sentence i is the windows `rows[i]` to `rows[i + 1]` of `windows`.

    Its words are `words[i]` to `words[i + 1]`; word j is read at position `places[j]` (special tokens counted, padding
    not) of the window `owners[j]`. `shared` counts the sentences that need more than one window.
    """

    windows: Tokens
    rows: NDArray[np.int64]
    words: NDArray[np.int64]
    owners: NDArray[np.int64]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sentence, over all its windows."""
        starts = self.windows.starts[self.rows]
        return np.diff(starts)

    @property
    def width(self) -> int:
        """Tokens of the longest window."""
        return self.windows.width

    @property
    def counts(self) -> NDArray[np.int64]:
        """Words of each sentence."""
        return np.diff(self.words)

    @property
    def shared(self) -> int:
        """Sentences that are read in more than one window."""
        return int((np.diff(self.rows) > 1).sum())

    def first(self, rows: int) -> WordPieces:
        """Return the first `rows` sentences."""
        kept, words = self.rows[: rows + 1], self.words[: rows + 1]
        count = int(words[-1])
        return WordPieces(self.windows.first(int(kept[-1])), kept, words, self.owners[:count], self.places[:count])

    def inputs(self, rows: NDArray[np.int64]) -> tuple[dict[str, torch.Tensor], NDArray[np.int64]]:
        """Return the padded windows of `rows`, and where their words stand in them: [rows, words], -1 where none is.

        A place counts over all positions of all windows of the batch, row by row: an index into logits that are
        reshaped to [windows * tokens, tags].
        """
        windows = np.concatenate([np.arange(self.rows[row], self.rows[row + 1]) for row in rows])
        lengths = self.windows.lengths[windows]
        width = int(lengths.max())
        order = {int(window): place for place, window in enumerate(windows)}
        where = np.full((len(rows), int(self.counts[rows].max(initial=0))), -1, np.int64)
        for line, row in enumerate(rows):
            span = slice(int(self.words[row]), int(self.words[row + 1]))
            own = np.asarray([order[int(window)] for window in self.owners[span]], np.int64)
            shift = width - lengths[own] if self.windows.pad_left else 0
            where[line, : len(own)] = own * width + shift + self.places[span]
        return pad(self.windows, windows), where


def cut_words(tokenizer: Any, sentences: Sequence[Sequence[str]], max_length: int, overlap: float) -> WordPieces:
    """Cut the words of `sentences` into pieces, in windows of at most `max_length` tokens, special tokens included.

    `overlap`: the share of a window that it has in common with the one before it. A word that the tokenizer gives no
    piece for stands as its unknown token. Raises EncoderError where a window has no room for text.
    """
    before, after = _specials(tokenizer)
    room = max_length - len(before) - len(after)
    if room < 1:
        raise EncoderError(f"encoder.max_length = {max_length} leaves no room for text beside special tokens")
    step = max(1, room - int(room * overlap))
    ids: list[list[int]] = []
    rows, words, owners, places = [0], [0], list[int](), list[int]()
    for pieces, firsts in _pieces(tokenizer, sentences):
        starts = _window_starts(len(pieces), room, step)
        for start in starts:
            ids.append([*before, *pieces[start : start + room], *after])
        for first in firsts:
            window = _owner(first, starts, room, len(pieces))
            owners.append(rows[-1] + window)
            places.append(len(before) + first - starts[window])
        rows.append(rows[-1] + len(starts))
        words.append(words[-1] + len(firsts))
    return WordPieces(
        windows=_flat(tokenizer, ids),
        rows=np.asarray(rows, np.int64),
        words=np.asarray(words, np.int64),
        owners=np.asarray(owners, np.int64),
        places=np.asarray(places, np.int64),
    )


def without_boundaries(tokenizer: Any) -> None:
    """Have `tokenizer` read characters as parts of a running text; other tokenizers than SentencePiece's do already.

    Those mark where a word begins: a character by itself would come out as a mark and a character, twice as many
    tokens, of which the first stands for it. The setting is saved with the tokenizer.
    """
    from tokenizers.pre_tokenizers import Metaspace, Sequence

    whole = getattr(getattr(tokenizer, "backend_tokenizer", None), "pre_tokenizer", None)
    for part in whole if isinstance(whole, Sequence) else [whole]:  # type: ignore[union-attr] # iterable by its items
        if isinstance(part, Metaspace):
            part.prepend_scheme = "never"


def _flat(tokenizer: Any, ids: Sequence[Sequence[int]]) -> Tokens:
    flat = np.concatenate([np.asarray(row, np.int32) for row in ids]) if ids else np.zeros(0, np.int32)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in ids], dtype=np.int64)]).astype(np.int64)
    segments = np.zeros(len(flat), np.int8) if "token_type_ids" in tokenizer.model_input_names else None
    return Tokens(flat, segments, starts, int(tokenizer.pad_token_id), tokenizer.padding_side == "left")


def _specials(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after a text."""
    empty = list(tokenizer("", add_special_tokens=True)["input_ids"])
    one = tokenizer("a", add_special_tokens=True)["input_ids"]
    before = 0
    while before < len(empty) and empty[before] == one[before]:
        before += 1
    return empty[:before], empty[before:]


def _pieces(tokenizer: Any, sentences: Sequence[Sequence[str]]) -> Any:
    """Yield the pieces of each sentence, and where each of its words begins among them."""
    for start in range(0, len(sentences), _CHUNK):
        chunk = [list(words) for words in sentences[start : start + _CHUNK]]
        flat = [word for words in chunk for word in words]
        known = dict.fromkeys(flat)
        try:
            encoded = tokenizer(
                [[word] for word in known], is_split_into_words=True, add_special_tokens=False, verbose=False
            )
        except AssertionError as error:
            raise EncoderError("this tokenizer needs add_prefix_space = true to read words one by one") from error
        by_word = dict(zip(known, encoded["input_ids"], strict=True))
        for words in chunk:
            pieces: list[int] = []
            firsts: list[int] = []
            for word in words:
                firsts.append(len(pieces))
                pieces += by_word[word] or [int(tokenizer.unk_token_id)]
            yield pieces, firsts


def _window_starts(pieces: int, room: int, step: int) -> list[int]:
    """Return where windows begin; the last one ends with the last piece."""
    if pieces <= room:
        return [0]
    starts = list(range(0, pieces - room, step))
    return [*starts, pieces - room]


def _owner(piece: int, starts: Sequence[int], room: int, pieces: int) -> int:
    """Return the window in which `piece` has the most context on its shorter side; ends of a sentence cut none off."""
    if len(starts) == 1:
        return 0

    def context(start: int) -> int:
        left = piece - start if start else pieces
        right = start + room - 1 - piece if start + room < pieces else pieces
        return min(left, right)

    holding = [window for window, start in enumerate(starts) if start <= piece < start + room]
    return max(holding, key=lambda window: context(starts[window]))
