"""Words keep their first piece's place, in as many windows as a sentence needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.pre_tokenizers import Metaspace, Sequence, WhitespaceSplit

from peftlab.data.text_units import units
from peftlab.data.word_pieces import cut_words, without_boundaries
from peftlab.encoders.bundled import BUNDLED
from peftlab.encoders.load import load_tokenizer
from peftlab.errors import EncoderError


@pytest.fixture
def tokenizer(tiny_encoder: Callable[..., Path]) -> Any:
    return load_tokenizer(tiny_encoder())


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_word_is_read_at_its_first_piece_whatever_pads_it(tokenizer: Any, side: str) -> None:
    """Neither [CLS] nor padding shifts a place; a word of several pieces counts once, one without pieces is unknown."""
    tokenizer.padding_side = side
    sentences = [["parcel", "box", "courier", "\u3000"], ["late"]]
    inputs, where = cut_words(tokenizer, sentences, 16, 0.25).inputs(np.array([0, 1]))
    ids = inputs["input_ids"].reshape(-1)
    read = [[tokenizer.convert_ids_to_tokens(int(ids[place])) for place in row if place >= 0] for row in where]
    assert read == [["parcel", "b", "courier", "[UNK]"], ["late"]]
    assert where[1].tolist()[1:] == [-1, -1, -1]


def test_a_long_sentence_is_read_whole_in_windows_that_overlap(tokenizer: Any) -> None:
    """2,000 words: each is read once, at its own piece, with context on both sides but at the sentence's ends."""
    words = [["parcel", "late", "courier"][place % 3] for place in range(2000)]
    cut = cut_words(tokenizer, [["late"], words], 32, 0.25)
    inputs, where = cut.inputs(np.array([1]))
    ids = inputs["input_ids"]
    assert ids.shape[1] == cut.width == 32
    assert cut.shared == 1
    assert cut.counts.tolist() == [1, 2000]
    assert tokenizer.convert_ids_to_tokens(ids.reshape(-1)[where[0]].tolist()) == words
    places = where[0] % 32
    inner = places[30:-30]
    assert min(inner.min() - 1, 30 - inner.max()) >= 3, "a word at the edge of a window would see one side only"
    assert cut.lengths.tolist() == [3, ids.numel() - int((ids == tokenizer.pad_token_id).sum())]


def test_the_first_rows_are_the_rows_themselves(tokenizer: Any) -> None:
    sentences = [["parcel"], ["late"] * 40, ["courier", "late"]]
    whole, first = cut_words(tokenizer, sentences, 16, 0.5), cut_words(tokenizer, sentences[:2], 16, 0.5)
    for name in ("rows", "words", "owners", "places"):
        assert np.array_equal(getattr(whole.first(2), name), getattr(first, name)), name
    assert np.array_equal(whole.first(2).windows.ids, first.windows.ids)


def test_a_window_without_room_is_refused(tokenizer: Any) -> None:
    with pytest.raises(EncoderError, match=r"encoder\.max_length = 2 leaves no room"):
        cut_words(tokenizer, [["late"]], 2, 0.25)


def test_a_text_is_cut_into_words_or_characters_with_their_places() -> None:
    text = "O'Neil  (U.S.) flew to AL-AIN, 我在Beijing。"
    words = units(text, characters=False)
    shown = ["O'Neil", "(", "U.S.", ")", "flew", "to", "AL-AIN", ",", "我", "在", "Beijing", "。"]
    assert [unit.text for unit in words] == shown
    assert all(text[unit.start : unit.end] == unit.text for unit in words)
    assert [unit.text for unit in units("a 我b", characters=True)] == ["a", "我", "b"]


@pytest.mark.parametrize("behind_words", [False, True])
def test_characters_are_read_without_marks_of_where_a_word_begins(behind_words: bool, tmp_path: Path) -> None:
    """SentencePiece's tokenizers, XLM-RoBERTa's layout among them, give one piece a character, and so once saved."""
    tokenizer = load_tokenizer(BUNDLED["mini-zh"].path() or tmp_path)
    if behind_words:
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence([WhitespaceSplit(), Metaspace()])
    characters = tuple("他在北京买了2台A3")
    before = cut_words(tokenizer, [characters], 64, 0.25)
    without_boundaries(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    for read in (tokenizer, load_tokenizer(tmp_path)):
        cut = cut_words(read, [characters], 64, 0.25)
        pieces = read.convert_ids_to_tokens(cut.windows.ids[cut.places].tolist())
        assert "".join(pieces) == "".join(characters)
        assert cut.width == len(characters) + 2 < before.width


def test_a_wordpiece_tokenizer_stays_as_it_is(tokenizer: Any) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    without_boundaries(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before
