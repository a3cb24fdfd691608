"""Add rows made from others: typos, lost and swapped words, words from a lexicon, mixtures, translation there and back.

Easy data augmentation (Wei and Zou 2019, arXiv 1901.11196) and its like. Whether a new text still deserves the label of
its source is measured: a cheap model that was fitted without the sources judges source and new text, and the report
says how often its answer stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from peftlab.curation.folds import chosen_judge, class_probabilities, features_of, is_cjk
from peftlab.curation.rows import Bench, Change, Curated, Rows
from peftlab.curation.slips import deletion, keyboard_slips, mixture, pinyin_slips, substitution, swap
from peftlab.errors import DataError
from peftlab.recipe.records import Record

PACKAGES = ("pypinyin",)
SINGLE_LABEL = False
_TRIES = 4
"""Draws of a source for each new row before its kind is given up on: many texts hold no word of a lexicon."""

Kind = Literal["typo", "pinyin", "delete", "swap", "substitute", "mix", "back_translate"]


class Config(Record):
    """Settings of augmentation."""

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("typo", "delete", "swap")
    """What is done, each kind to an equal part of the new rows. `typo`: keys beside the right one; `pinyin`: characters
    that are read alike; `substitute`: words of `lexicon`; `mix`: two texts of one label; `back_translate`: through
    `translators`."""
    share: Annotated[float, Field(gt=0, le=10)] = 0.5
    """New rows as a share of the rows that are there."""
    strength: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the letters (typo, pinyin) or words (delete, swap, substitute) that is changed, at least one."""
    lexicon: str | None = None
    """UTF-8 file of words that may stand for each other: one group a line, words separated by tabs."""
    translators: tuple[str, str] | None = None
    """Folders of two sequence-to-sequence models: into another language, and back."""
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What a new row counts in the loss."""
    judge: Literal["auto", "probe", "tfidf"] = "auto"
    """Model that measures whether labels survive; `auto`: `probe` where the recipe has an encoder."""
    measured: Annotated[int, Field(ge=0)] = 300
    """New rows on which that is measured; 0: not at all. Multi-label rows are not measured."""


def checks(config: Config, has_encoder: bool) -> Iterator[tuple[str, str, str | None]]:
    """Yield settings that do not go together: key, what is wrong, what to do."""
    if config.judge == "probe" and not has_encoder:
        yield "judge", "the probe needs an [encoder], and the recipe has none", 'write "tfidf"'
    for key, kind in (("lexicon", "substitute"), ("translators", "back_translate")):
        given, asked = getattr(config, key) is not None, kind in config.kinds
        if asked and not given:
            yield "kinds", f'"{kind}" needs {key}', f'add {key}, or take "{kind}" out'
        elif given and not asked:
            yield key, f'is given, and kinds has no "{kind}"', f'add "{kind}" to kinds, or remove the key'


def curate(rows: Rows, config: Config, bench: Bench) -> Curated:
    """Return the rows to add; a draw that leaves its source as it was is drawn again, and given up after some."""
    random = bench.random()
    wanted = round(config.share * len(rows))
    sources = _sources(len(rows), wanted * _TRIES, random)
    groups = _lexicon(config.lexicon, bench) if config.lexicon is not None else []
    label_rows = _rows_by_label(rows, bench) if "mix" in config.kinds else {}
    made: list[tuple[int, Kind, str]] = []
    for number in range(wanted):
        kind = config.kinds[number % len(config.kinds)]
        for place in sources[number * _TRIES : (number + 1) * _TRIES]:
            if kind == "back_translate":
                made.append((place, kind, ""))
                break
            text = _altered(kind, rows, place, config.strength, groups, label_rows, bench, random)
            if text != rows.split.texts[place]:
                made.append((place, kind, text))
                break
    made = _translated(made, rows, config, bench)
    old = rows.split.row_weights()
    changes = [
        Change(
            "add",
            int(rows.numbers[place]),
            kind,
            labels=bench.labels_of(rows, place),
            weight=None if config.weight == 1.0 else float(old[place]) * config.weight,
            text=text,
        )
        for place, kind, text in made
    ]
    figures: dict[str, Any] = {
        "asked": wanted,
        "made": {kind: sum(one == kind for _, one, _ in made) for kind in config.kinds},
    }
    sentences = []
    if len(made) < wanted:
        sentences.append(
            f"{wanted - len(made):,} of {wanted:,} new rows could not be made: no text to change was drawn"
        )
    if config.measured and made and not bench.multi_label:
        figures["label_kept"] = _label_kept(rows, made, config, bench, random)
        shown = ", ".join(f"{kind} {one['value']:.1%}" for kind, one in figures["label_kept"].items())
        sentences.append(f"new texts that the judge labels as it labels their source: {shown}")
    return Curated(changes, figures, sentences)


def _sources(rows: int, count: int, random: np.random.Generator) -> list[int]:
    """Draw `count` places in whole passes over the rows, so that each is used equally often."""
    passes = [random.permutation(rows) for _ in range(-(-count // rows))]
    return np.concatenate(passes)[:count].tolist() if passes else []


def _altered(
    kind: Kind,
    rows: Rows,
    place: int,
    strength: float,
    groups: list[list[str]],
    label_rows: dict[tuple[str, ...], list[int]],
    bench: Bench,
    random: np.random.Generator,
) -> str:
    text = rows.split.texts[place]
    letters = max(1, round(strength * len(text)))
    words = letters if any(map(is_cjk, text)) else max(1, round(strength * len(text.split())))
    match kind:
        case "typo":
            return keyboard_slips(text, letters, random)
        case "pinyin":
            return pinyin_slips(text, letters, random)
        case "delete":
            return deletion(text, words, random)
        case "swap":
            return swap(text, words, random)
        case "substitute":
            return substitution(text, groups, words, random)
        case "mix":
            others = label_rows[bench.labels_of(rows, place)]
            other = others[int(random.integers(len(others)))]
            return text if other == place else mixture(text, rows.split.texts[other], random)
        case "back_translate":
            raise AssertionError("translations are made all at once")


def _rows_by_label(rows: Rows, bench: Bench) -> dict[tuple[str, ...], list[int]]:
    found: dict[tuple[str, ...], list[int]] = {}
    for place in range(len(rows)):
        found.setdefault(bench.labels_of(rows, place), []).append(place)
    return found


def _translated(
    made: list[tuple[int, Kind, str]], rows: Rows, config: Config, bench: Bench
) -> list[tuple[int, Kind, str]]:
    """Fill in the translations; those that come back as their source, or empty, are left out."""
    waiting = [place for place, kind, _ in made if kind == "back_translate"]
    if not waiting or config.translators is None:
        return made
    from peftlab.curation.translators import there_and_back

    folders = [_found(name, "translators", bench) for name in config.translators]
    back = iter(there_and_back([rows.split.texts[place] for place in waiting], folders[0], folders[1]))
    filled = [(place, kind, next(back) if kind == "back_translate" else text) for place, kind, text in made]
    return [(place, kind, text) for place, kind, text in filled if text.strip() and text != rows.split.texts[place]]


def _label_kept(
    rows: Rows, made: list[tuple[int, Kind, str]], config: Config, bench: Bench, random: np.random.Generator
) -> dict[str, dict[str, float | int]]:
    """Return, by kind, how often the judge labels new text and source alike, on rows that it was not fitted on."""
    from peftlab.evaluation.intervals import wilson

    sample = [made[index] for index in np.sort(random.permutation(len(made))[: config.measured]).tolist()]
    places = [place for place, _, _ in sample]
    fitted = np.setdiff1d(np.arange(len(rows)), places)
    if not len(fitted):
        return {}
    judge = chosen_judge(config.judge, bench)
    pairs = rows.split.pairs
    texts = [*rows.split.texts, *(text for _, _, text in sample)]
    both = None if pairs is None else [*pairs, *(pairs[place] for place in places)]
    features = features_of(judge, texts, both, bench)
    asked = np.concatenate([np.asarray(places), np.arange(len(rows), len(texts))])
    answers = class_probabilities(
        features[fitted], rows.labels[fitted], features[asked], len(bench.label_names), seed=bench.seed
    ).argmax(1)
    same = answers[: len(sample)] == answers[len(sample) :]
    kinds = np.asarray([kind for _, kind, _ in sample])
    return {
        kind: wilson(int(same[kinds == kind].sum()), int((kinds == kind).sum())).to_dict()
        for kind in config.kinds
        if (kinds == kind).any()
    }


def _lexicon(name: str, bench: Bench) -> list[list[str]]:
    path = _found(name, "lexicon", bench)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the lexicon cannot be read: {error}; save it as UTF-8 text") from error
    groups: list[list[str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        words = list(dict.fromkeys(word.strip() for word in line.split("\t") if word.strip()))
        if len(words) < 2:
            raise DataError(f"{path}:{number}: expected two or more words separated by tabs, found {line!r}")
        groups.append(words)
    return groups


def _found(name: str, key: str, bench: Bench) -> Path:
    for place in (bench.folder / name, Path(name)):
        if place.exists():
            return place
    raise DataError(f'curate.{key}: there is no "{name}"; looked for in {bench.folder} and {Path.cwd()}')
