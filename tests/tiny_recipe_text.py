"""The recipe that tests of suites and ladders run: a head on the tiny encoder, for the tiny tickets."""

from __future__ import annotations

from pathlib import Path

_TEXT = """\
[encoder]
name = "{encoder}"
pooling = "mean"
max_length = 32

[task]
name = "classification"

[data]
train = "{tickets}/train.jsonl"
validation = "{tickets}/validation.jsonl"
test = "{tickets}/test.jsonl"

[method]
name = "head"

[train]
epochs = {epochs}
batch_size = 8
precision = "fp32"
threads = 1
"""


def tiny_recipe_text(encoder: Path, tickets: Path, *, epochs: int) -> str:
    """Return the text of the recipe; `tickets` holds a file of each split."""
    return _TEXT.format(encoder=encoder, tickets=tickets, epochs=epochs)
