"""A WordPiece vocabulary learnt from text, for BERT encoders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peftlab.errors import DataError
from peftlab.recipe.pretraining import Vocabulary

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Chinese characters, punctuation and letters that stand alone; the rest of the vocabulary is pieces of written words.
_ALPHABET_SHARE = 0.85


def learn_vocabulary(passages: Iterable[str], settings: Vocabulary, folder: Path, *, max_length: int) -> Any:
    """Learn the pieces of `passages`, write a BERT tokenizer to `folder` and return it.

    Chinese characters are single pieces (Devlin et al. 2019); the most frequent ones are kept, others are unknown.
    Raises DataError where the text has too few different pieces.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertTokenizer

    unknown = SPECIAL_TOKENS[1]
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=settings.lowercase, handle_chinese_chars=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.size,
        min_frequency=settings.least_count,
        limit_alphabet=int(settings.size * _ALPHABET_SHARE),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(passages, trainer)
    vocabulary = tokenizer.get_vocab()
    if len(vocabulary) <= len(SPECIAL_TOKENS):
        raise DataError("corpus: the text has no characters to learn a vocabulary from; name other files")
    first, last = SPECIAL_TOKENS[2], SPECIAL_TOKENS[3]
    tokenizer.post_processor = processors.BertProcessing((last, vocabulary[last]), (first, vocabulary[first]))
    tokenizer.decoder = decoders.WordPiece()
    made = BertTokenizer(tokenizer_object=tokenizer, do_lower_case=settings.lowercase, model_max_length=max_length)
    made.save_pretrained(folder)
    return made
