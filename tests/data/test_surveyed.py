"""What is known of rows in numbers is what their texts and labels say; and how much memory rows take."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftlab.data.examples import Example, parse_table, short_hash, text_key
from peftlab.data.labelled import load_labelled
from peftlab.data.readers import Table
from peftlab.data.surveyed import Rows, repeated, survey
from peftlab.recipe.records import Data

TEXTS = st.lists(
    st.tuples(st.sampled_from(["a", "A ", "b\ufffd", "c", "dd"]), st.sampled_from(["x", "y", ""])), max_size=12
)


def listed(rows: Sequence[tuple[str, str]]) -> list[Example]:
    """Return rows as a task makes them, one by one."""
    made = []
    for number, (text, label) in enumerate(rows, start=1):
        place = f"t.csv:{number}"
        made.append(Example(place, place, text, None, (label,) if label else (), text_key(text)))
    return made


def of_table(rows: Sequence[tuple[str, str]]) -> Sequence[Example]:
    """Return rows as a table gives them."""
    columns = {"text": [text for text, _ in rows], "label": [[label] if label else [] for _, label in rows]}
    return parse_table(
        Table("t.csv", "", "", range(1, len(rows) + 1), columns),  # type: ignore[arg-type] # roles
        multi_label=True,
        separator="|",
    ).examples


@pytest.mark.parametrize("made", [listed, of_table])
@given(TEXTS, st.data())
def test_facts_are_those_of_the_rows(
    made: Callable[[Sequence[tuple[str, str]]], Sequence[Example]], rows: list[tuple[str, str]], data: st.DataObject
) -> None:
    found = survey(made(rows))
    assert survey(found) is found
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12) if rows else st.just([]))
    for part, chosen in ((found, rows), (found.take(np.asarray(places, np.int64)), [rows[place] for place in places])):
        examples = list(part)
        assert [(row.text, "".join(row.labels)) for row in examples] == chosen
        assert part.texts == [text for text, _ in chosen]
        assert part.ids == [row.id for row in examples]
        assert part.pairs is None
        assert part.keys.tolist() == [short_hash(text_key(text)) for text, _ in chosen]
        assert [part.facts.label_sets[place] for place in part.sets.tolist()] == [row.labels for row in examples]
        assert part.characters.tolist() == [len(text) for text, _ in chosen]
        assert part.label_counts() == Counter(label for _, label in chosen if label)
        assert part.set_counts() == Counter(row.labels for row in examples)
        broken = [index for index, (text, _) in enumerate(chosen) if "\ufffd" in text]
        assert part.among(part.facts.broken).tolist() == broken


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=3))
def test_repeated_keys_are_those_that_stand_twice_in_whichever_part(parts: list[list[str]]) -> None:
    surveyed = [survey(listed([(text, "x") for text in part])) for part in parts]
    counts = Counter(text for part in parts for text in part)
    again = repeated(surveyed)
    assert again.tolist() == sorted(short_hash(text) for text, count in counts.items() if count > 1)
    for part, rows in zip(parts, surveyed, strict=True):
        assert rows.with_keys(again) == [n for n, text in enumerate(part) if counts[text] > 1]


def test_pairs_belong_to_their_rows() -> None:
    table = Table("t.csv", "", "", range(1, 4), {"text": ["a", "", "c"], "pair": ["d", "e", "f"], "label": ["x"] * 3})
    found = survey(parse_table(table, multi_label=False, separator="|").examples)
    assert isinstance(found, Rows)
    assert found.pairs == ["d", "f"]
    assert found.characters.tolist() == [2, 2]


def test_rows_of_a_file_take_little_more_memory_than_their_places(tmp_path: Path) -> None:
    """The texts alone are 200 bytes a row; of a million such rows, what is allowed here is 80 MB."""

    def peak(rows: int) -> int:
        file = tmp_path / f"{rows}.csv"
        lines = (f"{number} {'word ' * 40},{'ab'[number % 2]}\n" for number in range(rows))
        file.write_text("text,label\n" + "".join(lines), encoding="utf-8")
        tracemalloc.start()
        splits = load_labelled(
            Data(train=file.name), recipe_path=tmp_path / "r.toml", seed=0, multi_label=False, max_length=None
        )
        assert sum(map(len, (splits.train, splits.validation, splits.test))) == rows
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)  # what is imported on the way stays
    assert peak(24_000) - peak(4_000) < 80 * 20_000
