"""Text becomes sequences without padding, and nothing of it is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftlab.errors import DataError
from peftlab.pretraining.packing import BEGINS, CONTINUES, SPECIAL, is_packed, pack
from peftlab.pretraining.vocabulary import learn_vocabulary
from peftlab.recipe.pretraining import Corpus, Masking, Vocabulary

LINES = [f"第{row}单快递到了吗，请问退货要多久 parcels" for row in range(2000)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a vocabulary learnt from the lines."""
    folder = tmp_path_factory.mktemp("vocabulary")
    return learn_vocabulary(LINES, Vocabulary(size=100), folder, max_length=64)


def packed_text(tokenizer: Any, folder: Path, **settings: Any) -> Any:
    """Pack the lines into sequences of 64 tokens."""
    corpus = Corpus(files=("x.txt",), length=64, held_out=0.3)
    return pack(LINES, tokenizer, corpus, Masking(**settings), folder / "packed", seed=0)


def test_the_vocabulary_has_single_characters_and_reads_back(tokenizer: Any, tmp_path: Path) -> None:
    """Chinese characters alone, Latin words in pieces; the folder loads as a tokenizer of transformers."""
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    fresh = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    words = fresh.tokenize("快递 PARCELS")

    assert words[:2] == ["快", "递"]
    assert "".join(piece.removeprefix("##") for piece in words[2:]) == "parcels"
    assert fresh("快递")["input_ids"][0] == fresh.cls_token_id
    assert fresh("快递")["input_ids"][-1] == fresh.sep_token_id
    assert fresh.decode(fresh("快递")["input_ids"], skip_special_tokens=True).replace(" ", "") == "快递"


def test_every_token_stands_in_one_sequence_and_none_is_padding(tokenizer: Any, tmp_path: Path) -> None:
    """All but the last incomplete sequence of each split."""
    packed = packed_text(tokenizer, tmp_path)
    both = np.concatenate([packed.train[0], packed.held_out[0]])
    expected = sum(len(tokenizer(line, add_special_tokens=False)["input_ids"]) + 1 for line in LINES)

    assert packed.lines == len(LINES)
    assert (both[:, 0] == tokenizer.cls_token_id).all()
    assert (both != tokenizer.pad_token_id).all()
    assert 0 <= expected - both[:, 1:].size < 2 * 64
    assert packed.unknown_share == 0.0
    assert packed.held_out[0].shape[0] / len(both) == pytest.approx(0.3, abs=0.2)


def test_marks_say_where_words_begin(tokenizer: Any, tmp_path: Path) -> None:
    """`jieba` joins the characters of 快递, `spaces` the pieces of a Latin word only, `off` nothing."""
    first, second = (tokenizer.convert_tokens_to_ids(character) for character in "快递")
    found = {}
    for kind in ("jieba", "spaces", "off"):
        ids, marks = packed_text(tokenizer, tmp_path / kind, whole_words=kind).train
        pairs = np.argwhere((ids[:, :-1] == first) & (ids[:, 1:] == second))
        found[kind] = {int(marks[row, column + 1]) for row, column in pairs}
        assert set(np.unique(marks[ids == tokenizer.sep_token_id])) == {SPECIAL}

    assert found == {"jieba": {CONTINUES}, "spaces": {BEGINS}, "off": {BEGINS}}


def test_pieces_over_several_characters_join_where_a_word_goes_on(tmp_path: Path) -> None:
    """A piece that ends within a word is followed by the rest of it; one that ends with it is not."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import Unigram
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", "▁", "快", "递到", "了", "快递公", "司"]
    made = Tokenizer(Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    own = PreTrainedTokenizerFast(tokenizer_object=made, cls_token="<s>", sep_token="</s>", unk_token="<unk>")
    corpus = Corpus(files=("x.txt",), length=16, held_out=0.3)
    packed = pack(["快递公司快递到了"] * 4000, own, corpus, Masking(whole_words="jieba"), tmp_path / "packed", seed=0)
    ids, marks = packed.train

    def follows(first: str, second: str) -> set[int]:
        pair = [own.convert_tokens_to_ids(piece) for piece in (first, second)]
        places = np.argwhere((ids[:, :-1] == pair[0]) & (ids[:, 1:] == pair[1]))
        return {int(marks[row, column + 1]) for row, column in places}

    assert follows("快递公", "司") == {CONTINUES}
    assert follows("司", "快") == {BEGINS}
    assert follows("快", "递到") == {CONTINUES}
    assert follows("递到", "了") == {BEGINS}


def test_too_little_text_is_one_sentence_and_leaves_no_folder_that_counts(tokenizer: Any, tmp_path: Path) -> None:
    corpus = Corpus(files=("x.txt",), length=64)
    with pytest.raises(DataError, match="fills no train sequence of 64 tokens; add text"):
        pack(["快递"] * 3, tokenizer, corpus, Masking(), tmp_path / "packed", seed=0)

    assert not is_packed(tmp_path / "packed")
