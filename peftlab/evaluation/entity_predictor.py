"""A tagging run as a function from texts to the entities in them, each with its place in the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftlab.data.tag_schemes import spans
from peftlab.data.text_units import units

Tagger = Callable[[Sequence[Sequence[str]]], Sequence[Sequence[str]]]
"""From the tokens of sentences, one or more each, to their tags in IOB2."""


@dataclass(frozen=True)
class EntityPredictor:
    """A model that finds entities in texts. `characters`: it was trained on characters, not on words."""

    tagger: Tagger
    characters: bool
    text_column: str
    pair_column: str | None = None

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return `entities` of each text: `type`, `start`, `end` and `text`, which is the text's own [start:end].

        Offsets count characters (code points) from 0. Texts of any length are read whole, in windows.
        """
        found = [units(text, characters=self.characters) for text in texts]
        read = [[unit.text for unit in row] for row in found if row]
        tags = iter(self.tagger(read) if read else ())
        answers = []
        for text, row in zip(texts, found, strict=True):
            own = next(tags) if row else ()
            entities = [
                {
                    "type": kind,
                    "start": row[first].start,
                    "end": row[after - 1].end,
                    "text": text[row[first].start : row[after - 1].end],
                }
                for first, after, kind in spans(own)
            ]
            answers.append({"entities": entities})
        return answers

    def line(self, text: str, row: Mapping[str, Any]) -> str:
        """Return what is printed for one of `rows`: its entities with their places, then the text."""
        shown = "; ".join(f"{one['type']} {one['start']}-{one['end']} {one['text']}" for one in row["entities"])
        return f"{shown or '-'}\t{text}"
