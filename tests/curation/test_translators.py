"""Back-translation runs two sequence-to-sequence models from local folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftlab.curation.translators import there_and_back
from peftlab.errors import EncoderError


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random tiny T5 with a word tokenizer: what it writes means nothing."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("translator")
    words = ["<pad>", "</s>", "<unk>", *["where", "is", "my", "parcel", "card", "refund", "late", "please"]]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = T5Config(
        vocab_size=len(words),
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_each_text_comes_back_and_the_same_ones_every_time(translator: Path) -> None:
    texts = ["where is my parcel", "card refund late", "please"]
    back = there_and_back(texts, translator, translator)
    assert len(back) == 3
    assert back == there_and_back(texts, translator, translator)


def test_a_folder_without_such_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="holds no sequence-to-sequence model for back-translation"):
        there_and_back(["x"], tmp_path, tmp_path)
