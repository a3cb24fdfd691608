"""Tagged sentences of the words of the tiny ticket set."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tiny_words import FILLER, TOPICS


def sentence(draw: random.Random, words: int) -> dict[str, Any]:
    """Return a sentence whose logistics words are entities of one or two tokens."""
    tokens: list[str] = []
    tags: list[str] = []
    while len(tokens) < words:
        kind = draw.choice(["", "logistics", "payment"])
        found = (
            draw.sample(TOPICS["en"][kind].split(), draw.randint(1, 2)) if kind else [draw.choice(FILLER["en"].split())]
        )
        tokens += found
        tags += [f"B-{kind}", *[f"I-{kind}"] * (len(found) - 1)] if kind else ["O"]
    return {"tokens": tokens[:words], "tags": tags[:words]}


def write_tiny_sentences(folder: Path, longest: int) -> Path:
    """Write 40, 16 and 16 sentences of 1 to 9 words, the first test sentence of `longest` words; return the folder."""
    draw = random.Random(0)
    for name, rows in (("train", 40), ("validation", 16), ("test", 16)):
        made = [sentence(draw, longest if name == "test" and row == 0 else draw.randint(1, 9)) for row in range(rows)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return folder
