"""Translate texts into another language and back, with two sequence-to-sequence models from local folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peftlab.errors import EncoderError

_BATCH = 32
_MOST_TOKENS = 128


def there_and_back(texts: Sequence[str], there: Path, back: Path) -> list[str]:
    """Return each text translated by `there` and then by `back`; greedy, so that the same texts come out every time.

    A text that `there` answers with nothing comes back empty.
    Raises EncoderError where a folder holds no such model.
    """
    translated = _translated(list(texts), there)
    full = [place for place, text in enumerate(translated) if text.strip()]
    returned = ["" for _ in texts]
    for place, text in zip(full, _translated([translated[place] for place in full], back), strict=True):
        returned[place] = text
    return returned


def _translated(texts: list[str], folder: Path) -> list[str]:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise EncoderError(f"{folder} holds no sequence-to-sequence model for back-translation: {error}") from error
    translated: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer(
                texts[start : start + _BATCH],
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=_MOST_TOKENS,
            )
            ids = model.generate(**batch, num_beams=1, do_sample=False, max_new_tokens=_MOST_TOKENS)
            translated += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return translated
