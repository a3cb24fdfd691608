"""Python for the card of an export: how texts become inputs, and how the logits of tokens become tags.

It runs without peftlab. A tagger's decoding lies beside its model, in `decoding.safetensors` (see `tag_decoding`).
"""

from __future__ import annotations

import json
from typing import Literal

from peftlab.runs.certificate import DECODING, Exported

_FIRST = "first = [ids.index(word) for word in dict.fromkeys(ids) if word is not None]  # first piece of each word"
_VITERBI = f"""

from safetensors.numpy import load_file


def best_path(scores, start, between, end):  # [words, tags], [tags], [tags, tags], [tags]; Viterbi's algorithm
    total, back = start + scores[0], []
    for word in scores[1:]:
        paths = total[:, None] + between
        back.append(paths.argmax(0))
        total = paths.max(0) + word
    path = [int((total + end).argmax())]
    for row in reversed(back):
        path.append(int(row[path[-1]]))
    return path[::-1]


learned = load_file(f"{{folder}}/{DECODING}")
rules = [learned[name] for name in ("start_transitions", "transitions", "end_transitions")]"""


def inputs_code(exported: Exported, tensors: Literal["pt", "np"]) -> str:
    """Return lines that make `inputs` of `texts` with `tokenizer`; of a tagger also `words`, the words of each text."""
    cut = f'truncation=True, max_length={exported.max_length}, padding=True, return_tensors="{tensors}")'
    if not exported.each_token:
        return f"inputs = tokenizer(texts, {cut}"
    each = (
        "[sign for sign in text if not sign.isspace()]"
        if exported.settings.get("units") == "characters"
        else "text.split()"
    )
    return f"words = [{each} for text in texts]\ninputs = tokenizer(words, is_split_into_words=True, {cut}"


def tags_code(exported: Exported) -> str:
    """Return lines that make `tags`, one a word of each text, of a tagger's `logits`; nothing for another model."""
    if not exported.each_token:
        return ""
    constrained = exported.settings.get("decoding") == "constrained"
    best = "best_path(logits[number, first], *rules)" if constrained else "logits[number, first].argmax(-1)"
    names = json.dumps(exported.labels, ensure_ascii=False)
    return f"""{_VITERBI if constrained else ""}
names = {names}
tags = []
for number in range(len(texts)):
    ids = inputs.word_ids(number)
    {_FIRST}
    tags.append([names[tag] for tag in {best}] if first else [])"""
