"""From a recipe's `[data]` section to checked, split questions on passages, with the answers that stand in these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from peftlab.data.decoding import decode, read_bytes, unpack
from peftlab.data.examples import Example
from peftlab.data.labelled import stop_at
from peftlab.data.readers import LISTED, Role, Table, read_table, require_columns
from peftlab.data.rows import SplitName
from peftlab.data.sources import SPLITS, find_source
from peftlab.data.sources import Reading as Source
from peftlab.data.text_pairs import Reading, TokenLengths, check_pairs, second
from peftlab.errors import DataError
from peftlab.recipe.records import Data
from peftlab.runs.files import write_json

CONTEXT, QUESTION, ANSWERS = "context", "question", "answers"
"""Columns of passages, questions and answers, where `data.text`, `data.pair` and `data.label` name no others."""
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


@dataclass(frozen=True)
class Answer:
    """Words of a passage, and the character at which they begin."""

    text: str
    start: int

    @property
    def end(self) -> int:
        """The character behind the last one."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class QuestionSplit:
    """The questions of one split, in file order. `answers` [rows]: all right ones, the first of which is trained on.

    A question without any cannot be answered from its passage.
    """

    name: SplitName
    ids: Sequence[str]
    contexts: Sequence[str]
    questions: Sequence[str]
    answers: Sequence[tuple[Answer, ...]]

    def __len__(self) -> int:
        return len(self.questions)

    def joined(self, other: QuestionSplit) -> QuestionSplit:
        """Return this split with the rows of `other` behind its own."""
        return QuestionSplit(
            self.name,
            [*self.ids, *other.ids],
            [*self.contexts, *other.contexts],
            [*self.questions, *other.questions],
            [*self.answers, *other.answers],
        )


@dataclass(frozen=True)
class QuestionSplits:
    """The three splits of one run; the rest as in `Splits`."""

    train: QuestionSplit
    validation: QuestionSplit
    test: QuestionSplit
    source: Mapping[str, Any]
    fingerprint: str
    report: Mapping[str, Any]


def load_questions(data: Data, reading: Reading) -> QuestionSplits:
    """Read, check and split questions: files of SQuAD (1.1 or 2.0), or rows of its columns.

    Questions on one passage stay in one split. `reading.max_length` is most tokens of a question. Raises DataError,
    naming rows, for answers that do not stand where they are said to, questions too long to leave room for a passage,
    and for all findings of severity `stop` together.
    """
    from peftlab.data.passages.generate import passage_source

    source = find_source(
        data, recipe_path=reading.recipe_path, reading=Source(_wanted(data), read_questions, passage_source, ENDINGS)
    )
    answers = {split: _answers(table) for split, table in source.tables.items()}
    without_lengths = Reading(reading.recipe_path, reading.seed, None, reading.report_path)
    found = check_pairs(source, data, without_lengths, None)  # passages are read in windows, so that none is cut
    if reading.token_lengths is not None and reading.max_length is not None:
        _refuse_long(found.rows, reading.token_lengths, reading.max_length)
    made = {split: _split(split, found.rows[split], answers.get(split, answers["train"])) for split in SPLITS}
    digest = _fingerprint(made)
    counts = {name: sum(not row for row in split.answers) for name, split in made.items()}
    note = "questions without an answer: " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
    report = found.report | {"fingerprint": digest, "unanswerable": counts, "notes": [*found.report["notes"], note]}
    if reading.report_path is not None:
        write_json(reading.report_path, report)
    stop_at(found.findings, reading.report_path)
    return QuestionSplits(**made, source=source.description, fingerprint=digest, report=report)


def with_notes(splits: QuestionSplits, notes: Sequence[str], report_path: Path | None) -> QuestionSplits:
    """Return `splits` with `notes` behind those of its report, which is written again."""
    report = {**splits.report, "notes": [*splits.report["notes"], *notes]}
    if report_path is not None and notes:
        write_json(report_path, report)
    return replace(splits, report=report)


def read_questions(path: Path, wanted: Mapping[Role, str]) -> Table:
    """Read a file of SQuAD, an object with `data`, or a table as `read_table` does; a row's line is its number."""
    if not path.name.lower().removesuffix(".gz").endswith(".json"):
        return read_table(path, wanted)
    content = read_bytes(path)
    text = decode(path, unpack(path, content) if path.name.lower().endswith(".gz") else content)
    if not text.lstrip().startswith("{") or '"data"' not in text:
        return read_table(path, wanted)
    try:
        rows = list(_squad(json.loads(text)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: is no file of SQuAD ({type(error).__name__}: {error}); expected data, paragraphs, context, qas, "
            "each with question and answers, or rows of these in .jsonl"
        ) from error
    if not rows:
        raise DataError(f"{path}: holds no questions; expected at least one")
    require_columns(str(path), ("id", CONTEXT, QUESTION, ANSWERS), wanted)
    columns: dict[Role, Sequence[object]] = {role: [row[name] for row in rows] for role, name in wanted.items()}
    columns.setdefault("id", [row["id"] for row in rows])
    return Table(path.name, str(path.resolve()), hashlib.sha256(content).hexdigest(), range(1, len(rows) + 1), columns)


def _wanted(data: Data) -> dict[Role, str]:
    columns: dict[Role, str] = {
        "text": CONTEXT if data.text == "text" else data.text,
        "pair": data.pair or QUESTION,
        "label": ANSWERS if data.label == "label" else data.label,
    }
    return columns | ({"id": data.id} if data.id is not None else {})


def text_columns(data: Data) -> tuple[str, str]:
    """Return the columns of passages and of questions."""
    wanted = _wanted(data)
    return wanted["text"], wanted["pair"]


def _squad(book: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the questions of a file of SQuAD as rows; those marked as impossible have no answers."""
    for article in book["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                yield {
                    "id": asked.get("id"),
                    CONTEXT: paragraph["context"],
                    QUESTION: asked["question"],
                    ANSWERS: [] if asked.get("is_impossible") else asked["answers"],
                }


def _answers(table: Table) -> dict[str, tuple[Answer, ...]]:
    """Return the answers of each row of `table` by its place; DataError that names rows where they are wrong."""
    found: dict[str, tuple[Answer, ...]] = {}
    bad = []
    rows = zip(table.lines, table.columns["text"], table.columns["label"], strict=True)
    for line, context, raw in rows:
        place = f"{table.name}:{line}"
        try:
            found[place] = _listed(raw, context if isinstance(context, str) else "")
        except ValueError as error:
            bad.append(f"{place}: {error}")
    _refuse(bad, "answers", "correct the rows")
    return found


def _listed(raw: object, context: str) -> tuple[Answer, ...]:
    """Return answers as SQuAD and its copy on the hub have them; ValueError, whose text is the reason."""
    if isinstance(raw, dict) and raw.keys() == {"text", "answer_start"}:
        if len(raw["text"]) != len(raw["answer_start"]):
            raise ValueError(f"{len(raw['text'])} answers have {len(raw['answer_start'])} starts")
        raw = [{"text": text, "answer_start": start} for text, start in zip(*raw.values(), strict=True)]
    if not isinstance(raw, list | tuple):
        raise ValueError(  # noqa: TRY004 a reason, not a type of Python's
            f"answers are {'absent' if raw is None else repr(raw)}; expected a list, empty where there is none"
        )
    found = []
    for one in raw:
        text, start = (one.get("text"), one.get("answer_start")) if isinstance(one, dict) else (None, None)
        if not isinstance(text, str) or not text.strip() or type(start) is not int:
            raise ValueError(f'an answer is {one!r}; expected {{"text": "...", "answer_start": 0}}')
        if not 0 <= start <= len(context) - len(text):
            raise ValueError(
                f'the answer "{text}" at character {start} lies outside the passage of {len(context)} characters'
            )
        if context[start : start + len(text)] != text:
            there = context[start : start + len(text)]
            raise ValueError(
                f'the answer "{text}" does not stand at character {start} of the passage, where "{there}" is'
            )
        found.append(Answer(text, start))
    return tuple(found)


def _refuse(bad: Sequence[str], what: str, advice: str) -> None:
    if len(bad) == 1:
        raise DataError(f"data: {bad[0]}; {advice}")
    if bad:
        listed = "".join(f"\n  {line}" for line in bad[:LISTED])
        which = f"the first {LISTED} are" if len(bad) > LISTED else "they are"
        raise DataError(f"data: {what} of {len(bad):,} rows cannot be used; {advice}; {which}:{listed}")


def _refuse_long(rows: Mapping[SplitName, Sequence[Example]], lengths: TokenLengths, most: int) -> None:
    bad = []
    for split in SPLITS:
        tokens = np.asarray(lengths([second(row) for row in rows[split]], None), np.int64)
        bad += [
            f"{rows[split][row].place}: the question has {tokens[row]:,} tokens"
            for row in np.flatnonzero(tokens > most).tolist()
        ]
    _refuse(bad, "questions", f"with the passage they share encoder.max_length, half of it, {most}, at most; raise it")


def _split(name: SplitName, rows: Sequence[Example], answers: Mapping[str, tuple[Answer, ...]]) -> QuestionSplit:
    return QuestionSplit(
        name,
        [row.id for row in rows],
        [row.text for row in rows],
        [second(row) for row in rows],
        [answers[row.place] for row in rows],
    )


def _fingerprint(splits: Mapping[SplitName, QuestionSplit]) -> str:
    digest = hashlib.sha256()
    for split in splits.values():
        for name, context, question, answers in zip(
            split.ids, split.contexts, split.questions, split.answers, strict=True
        ):
            row = [split.name, name, context, question, [[one.text, one.start] for one in answers]]
            digest.update(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
