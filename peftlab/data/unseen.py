"""Labelled rows of a file that no part of a run has seen."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import numpy as np

from peftlab.data.examples import parse_table, text_key
from peftlab.data.readers import Role, read_table
from peftlab.data.rows import Split, Splits
from peftlab.errors import DataError
from peftlab.recipe.records import Data

_SHOWN = 5


def unseen_rows(file: Path, data: Data, splits: Splits) -> Split:
    """Return the rows of `file`, in the columns and with the labels of the recipe, one label a text.

    Raises DataError for rows without text or label, for labels that the run does not know, and for texts that are among
    those of the run, in whichever split.
    """
    wanted: dict[Role, str] = {"text": data.text, "label": data.label}
    if data.pair is not None:
        wanted["pair"] = data.pair
    if not file.is_file():
        raise DataError(f"there is no file {file}")
    parsed = parse_table(read_table(file, wanted), multi_label=False, separator=data.label_separator)
    index = {label: number for number, label in enumerate(splits.label_names)}
    seen = {
        text_key(text, pair): split.name
        for split in (splits.train, splits.validation, splits.test)
        for text, pair in zip_longest(split.texts, split.pairs or ())
    }
    rows = parsed.examples
    problems = [f"{one.place}: {one.reason}" for one in parsed.unusable]
    problems += [f"{row.place}: no label of the run: {row.labels[0]!r}" for row in rows if row.labels[0] not in index]
    problems += [f"{row.place}: its text is a {seen[row.key]} row of the run" for row in rows if row.key in seen]
    if problems:
        more = f", and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
        raise DataError(f"rows that cannot be used: {'; '.join(problems[:_SHOWN])}{more}; take them out of {file}")
    pairs = [row.pair for row in rows if row.pair is not None] or None
    labels = np.asarray([index[row.labels[0]] for row in rows], np.int64)
    return Split("validation", [row.id for row in rows], [row.text for row in rows], pairs, labels)
