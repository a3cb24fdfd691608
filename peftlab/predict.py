"""`peftlab predict`: labels and probabilities for new texts, from a finished run or an export of any format."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.errors import UserError
from peftlab.programs import EXIT_CODES, quiet_libraries, run_program

if TYPE_CHECKING:
    from peftlab.data.readers import Role

_AT_ONCE = 1024  # texts tokenised and held at a time, so that memory does not grow with the file


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _predict(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab predict`."""
    made = argparse.ArgumentParser(
        prog="peftlab predict",
        description="Label texts with a finished run or an export. Texts come from --text, from a file, or from\n"
        "standard input (-): plain text has one text a line; .jsonl, .csv, .tsv and .parquet files have the\n"
        "recipe's columns. Files are read row by row, so that they may be of any size.",
        epilog="examples:\n"
        '  peftlab predict RUN --text "where is my parcel?"\n'
        "  peftlab predict RUN tickets.jsonl --json\n"
        "  cat tickets.txt | peftlab predict RUN - --json\n"
        "  peftlab predict EXPORT tickets.csv --json --out answers.jsonl  # typed again after a kill, it goes on\n\n"
        + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", metavar="RUN", help="a run folder, the name of one in ./runs, or an export's folder")
    made.add_argument("file", nargs="?", metavar="FILE", help="a file of texts, or - for standard input")
    made.add_argument("--text", action="append", default=[], metavar="TEXT", help="a text to label; may be repeated")
    made.add_argument(
        "--pair", action="append", default=[], metavar="TEXT", help="second text of each --text, for pairs"
    )
    made.add_argument(
        "--against", metavar="FILE", help="for tasks that rank: the candidates that each text is held against"
    )
    made.add_argument(
        "--json",
        action="store_true",
        help='one JSON object a text; of a classifier {"label": ..., "probabilities": {...}}, and "routed" after\n'
        "`peftlab calibrate`",
    )
    made.add_argument(
        "--out", metavar="FILE", help="write the answers there; called again after a kill, it goes on where it was"
    )
    return made


def _predict(asked: argparse.Namespace) -> int:
    from peftlab.show import run_folder

    folder = run_folder(asked.run)
    if bool(asked.text) == bool(asked.file):
        raise UserError("give texts either by --text or as a file (- for standard input)")
    if asked.out and (asked.text or asked.file == "-"):
        raise UserError("--out continues after a kill, for which it reads FILE again; give a file, not --text or -")
    quiet_libraries()
    predictor = _load(folder, Path(asked.against) if asked.against else None)
    if predictor.pair_column and asked.text and len(asked.pair) != len(asked.text):
        raise UserError("this run takes pairs of texts: give one --pair for each --text, in the same order")
    if not predictor.pair_column and asked.pair:
        raise UserError("this run takes single texts; leave out --pair")
    if asked.out:
        return _to_file(asked, predictor, folder)
    pairs = asked.pair if predictor.pair_column else [""] * len(asked.text)
    rows = zip(asked.text, pairs, strict=True) if asked.text else _rows(asked.file, predictor)
    for batch in _batches(rows):
        for line in _answers(predictor, batch, as_json=asked.json):
            print(line, flush=False)
    return 0


def _load(folder: Path, against: Path | None) -> Any:
    """Load the run or the export in `folder`: what has the interface of `Predictor`."""
    from peftlab.runs.certificate import is_export

    if is_export(folder):
        from peftlab.shipping.loading import load_export

        return load_export(folder, against)
    from peftlab.evaluation.predictor import load_predictor

    return load_predictor(folder, against)


def _to_file(asked: argparse.Namespace, predictor: Any, folder: Path) -> int:
    """Answer the rows of a file into another file, going on where an earlier call was stopped."""
    from rich.console import Console

    from peftlab.runs.certificate import file_hash
    from peftlab.runs.continued import continued_file
    from peftlab.training.progress import bar

    source, out = Path(asked.file), Path(asked.out)
    total = sum(1 for _ in _rows(asked.file, predictor))  # also finds every mistake of the file before any work
    made_of = {"model": _identity(folder), "file": file_hash(source), "form": "json" if asked.json else "text"}
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with continued_file(out, made_of) as target, bar(console, "predict", total, done=target.done) as drawn:
        if target.done:
            console.print(f"{out} already answers {target.done:,} of {total:,} rows; going on behind them")
        for batch in _batches(islice(_rows(asked.file, predictor), target.done, None)):
            lines = _answers(predictor, batch, as_json=asked.json)
            target.file.write("".join(f"{line}\n" for line in lines).encode("utf-8"))
            target.file.flush()
            drawn.advance(len(batch))
    console.print(f"{total:,} rows answered in {out}")
    return 0


def _identity(folder: Path) -> str:
    """Return a hash over what decides a model's answers: the sums of an export, or a run's model and calibration."""
    import hashlib

    from peftlab.runs.calibration import FILE_NAME, model_hash
    from peftlab.runs.certificate import SUMS, file_hash

    if (folder / SUMS).is_file():
        return file_hash(folder / SUMS)
    calibration = file_hash(folder / FILE_NAME) if (folder / FILE_NAME).is_file() else ""
    return hashlib.sha256(f"{model_hash(folder)}{calibration}".encode()).hexdigest()


def _batches(rows: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    left = iter(rows)
    while batch := list(islice(left, _AT_ONCE)):
        yield batch


def _answers(predictor: Any, batch: Sequence[tuple[str, str]], *, as_json: bool) -> Iterator[str]:
    """Yield one line a row."""
    texts = [text for text, _ in batch]
    pairs = [pair for _, pair in batch] if predictor.pair_column else None
    for text, row in zip(texts, predictor.rows(texts, pairs), strict=True):
        # One line a row, whatever the text holds.
        yield json.dumps(row, ensure_ascii=False) if as_json else re.sub(r"[\r\n]+", " ", predictor.line(text, row))


def _rows(file: str, predictor: Any) -> Iterator[tuple[str, str]]:
    """Yield text and second text (empty where there is none) of each row of `file`, in constant memory."""
    from peftlab.data.entity_markers import entity_roles, mark_row
    from peftlab.data.stream import stream_lines, stream_rows

    pair = predictor.pair_column
    if file != "-" and not Path(file).is_file():
        raise UserError(f"there is no file {file}")
    if file == "-" or Path(file).suffix.lower() in {".txt", ""}:
        if pair is not None:
            raise UserError("pairs of texts need a .jsonl, .csv, .tsv or .parquet file with both columns")
        for number, text in stream_lines(file):
            if not text.strip():
                raise UserError(f"{file}:{number}: the line is empty; every line must hold a text, so that answers fit")
            yield text, ""
        return
    wanted: dict[Role, str] = {"text": predictor.text_column, **({"pair": pair} if pair is not None else {})}
    entities = getattr(predictor, "entity_columns", None)  # only a classifier may have them
    if entities is not None:
        wanted |= entity_roles(entities)
    for line, values in stream_rows(Path(file), wanted):
        first = values["text"]
        second = values["pair"] if pair is not None else ""
        if not isinstance(first, str) or not first.strip() or not isinstance(second, str):
            raise _no_text(Path(file), wanted, line, first)
        yield (mark_row(f"{file}:{line}", values, first) if entities is not None else first), second


def _no_text(file: Path, wanted: dict[Role, str], line: int, found: object) -> UserError:
    """Return the error for a row without a text; where the whole file lacks the column, reading it says so instead."""
    from peftlab.data.readers import read_table

    read_table(file, wanted)
    return UserError(f"{file}:{line}: expected a text, found {found!r}; every row is answered, so none may lack one")


if __name__ == "__main__":
    sys.exit(main())
