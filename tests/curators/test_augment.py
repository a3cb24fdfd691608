"""`augment` adds rows that differ from their source as asked, and measures whether labels survive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from peftlab.curation.rows import Bench, Curated, Rows
from peftlab.curation.slips import deletion, keyboard_slips, pinyin_slips, substitution, swap
from peftlab.errors import DataError

Run = Callable[..., tuple[Rows, Curated]]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_keyboard_slip_is_a_key_that_touches_the_right_one(random: np.random.Generator) -> None:
    assert {keyboard_slips("g", 1, random) for _ in range(200)} == set("tyfhvb")
    assert keyboard_slips("G1?", 1, random)[0].isupper()
    assert keyboard_slips("123", 2, random) == "123"


def test_a_pinyin_slip_is_read_alike(random: np.random.Generator) -> None:
    from pypinyin import lazy_pinyin

    heard = {lazy_pinyin(pinyin_slips("是", 1, random))[0] for _ in range(200)}
    assert heard == {"shi", "si"}
    changed = pinyin_slips("我的包裹在哪里", 2, random)
    assert len(changed) == 7
    assert sum(one != other for one, other in zip(changed, "我的包裹在哪里", strict=True)) == 2


def test_words_are_lost_and_swapped_and_chinese_by_letter(random: np.random.Generator) -> None:
    text = "one two three four"
    assert sorted(deletion(text, 2, random).split()) != sorted(text.split())
    assert len(deletion(text, 2, random).split()) == 2
    assert deletion("one two", 9, random) in ("one", "two")
    assert sorted(swap(text, 1, random).split()) == sorted(text.split())
    assert len(deletion("我的包裹", 1, random)) == 3
    assert sorted(swap("我的包裹", 1, random)) == sorted("我的包裹")


def test_a_word_of_the_lexicon_is_replaced_as_a_whole_word_only(random: np.random.Generator) -> None:
    groups = [["card", "debit card"], ["包裹", "快件"]]
    assert substitution("my card", groups, 1, random) == "my debit card"
    assert substitution("my cardboard", groups, 1, random) == "my cardboard"
    assert substitution("我的包裹呢", groups, 1, random) == "我的快件呢"


def test_new_rows_stand_behind_the_old_ones_and_name_their_source(tickets: Callable[..., Rows], curate: Run) -> None:
    rows = tickets(rows=60)
    after, done = curate("augment", rows, kinds=("typo", "delete", "swap", "mix"), share=0.5, weight=0.5)
    assert after.split.texts[:60] == rows.split.texts
    assert len(after) == 90
    assert after.split.row_weights().tolist() == [1.0] * 60 + [0.5] * 30
    for place, change in enumerate(done.changes, start=60):
        source = change.row - 1
        assert after.labels[place] == rows.labels[source]
        assert after.split.ids[place] == f"{rows.split.ids[source]}+{place + 1}"
        assert after.split.texts[place] != rows.split.texts[source]
    assert done.figures["made"] == {"typo": 8, "delete": 8, "swap": 7, "mix": 7}


def test_how_often_labels_survive_is_measured_for_each_kind(tickets: Callable[..., Rows], curate: Run) -> None:
    kept = curate("augment", tickets(), kinds=("swap", "delete"))[1].figures["label_kept"]
    assert kept["swap"]["value"] == 1.0
    assert kept["swap"]["n"] + kept["delete"]["n"] == 120
    assert kept["swap"]["low"] < 1.0


def test_a_kind_that_finds_nothing_to_change_says_so(tickets: Callable[..., Rows], curate: Run, bench: Bench) -> None:
    (bench.folder / "words.tsv").write_text("# groups\nunicorn\tdragon\n", encoding="utf-8")
    after, done = curate("augment", tickets(rows=30), kinds=("substitute",), lexicon="words.tsv")
    assert len(after) == 30
    assert list(done.sentences) == ["15 of 15 new rows could not be made: no text to change was drawn"]


def test_a_broken_lexicon_is_named_with_its_line(tickets: Callable[..., Rows], curate: Run, bench: Bench) -> None:
    (bench.folder / "words.tsv").write_text("card\tdebit card\nalone\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"words.tsv:2: expected two or more words separated by tabs"):
        curate("augment", tickets(rows=30), kinds=("substitute",), lexicon="words.tsv")


def test_the_same_seed_gives_the_same_rows(tickets: Callable[..., Rows], curate: Run) -> None:
    rows = tickets("zh", 60)
    first, second = (curate("augment", rows, kinds=("pinyin", "delete"))[0] for _ in range(2))
    assert first.split.texts == second.split.texts


def test_texts_are_translated_there_and_back(
    tickets: Callable[..., Rows], curate: Run, monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    """Through the two folders that the recipe names; a text that comes back as it was makes no row."""
    for name in ("there", "back"):
        (bench.folder / name).mkdir()

    def translated(texts: list[str], folder: Path) -> list[str]:
        return [text if "invoice" in text else f"{text} {folder.name}" for text in texts]

    monkeypatch.setattr("peftlab.curation.translators._translated", translated)
    rows = tickets(rows=60)
    after, _ = curate("augment", rows, kinds=("back_translate",), translators=("there", "back"), measured=0)
    new = after.split.texts[60:]
    assert new
    assert all(text.endswith(" there back") for text in new)
