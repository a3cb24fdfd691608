"""`peftlab predict`: labels and probabilities for new texts, from a finished run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from peftlab.errors import UserError
from peftlab.programs import EXIT_CODES, quiet_libraries, run_program

_AT_ONCE = 1024  # texts tokenised and held at a time, so that memory does not grow with the file


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _predict(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab predict`."""
    made = argparse.ArgumentParser(
        prog="peftlab predict",
        description="Label texts with a finished run. Texts come from --text, from a file, or from standard input\n"
        "(-): plain text has one text a line; .jsonl, .csv, .tsv and .parquet files have the recipe's columns.",
        epilog="examples:\n"
        '  peftlab predict RUN --text "where is my parcel?"\n'
        "  peftlab predict RUN tickets.jsonl --json\n"
        "  cat tickets.txt | peftlab predict RUN - --json\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", metavar="RUN", help="a run folder, or the name of one in ./runs")
    made.add_argument("file", nargs="?", metavar="FILE", help="a file of texts, or - for standard input")
    made.add_argument("--text", action="append", default=[], metavar="TEXT", help="a text to label; may be repeated")
    made.add_argument(
        "--pair", action="append", default=[], metavar="TEXT", help="second text of each --text, for pairs"
    )
    made.add_argument(
        "--json", action="store_true", help='one JSON object a text: {"label": ..., "probabilities": {...}}'
    )
    return made


def _predict(asked: argparse.Namespace) -> int:
    from peftlab.show import run_folder

    folder = run_folder(asked.run)
    if bool(asked.text) == bool(asked.file):
        raise UserError("give texts either by --text or as a file (- for standard input)")
    quiet_libraries()
    from peftlab.evaluation.predictor import load_predictor

    predictor = load_predictor(folder)
    if predictor.pairs and asked.text and len(asked.pair) != len(asked.text):
        raise UserError("this run labels pairs of texts: give one --pair for each --text, in the same order")
    if not predictor.pairs and asked.pair:
        raise UserError("this run labels single texts; leave out --pair")
    for texts, pairs in _batches(asked, folder, paired=predictor.pairs):
        for text, row in zip(texts, predictor.rows(texts, pairs), strict=True):
            print(json.dumps(row, ensure_ascii=False) if asked.json else _line(text, row), flush=False)
    return 0


def _batches(asked: argparse.Namespace, run: Path, *, paired: bool) -> Iterator[tuple[list[str], list[str] | None]]:
    if asked.text:
        yield asked.text, asked.pair if paired else None
        return
    texts: list[str] = []
    pairs: list[str] = []
    for text, pair in _texts(asked.file, run, paired=paired):
        texts.append(text)
        pairs.append(pair)
        if len(texts) == _AT_ONCE:
            yield texts, pairs if paired else None
            texts, pairs = [], []
    if texts:
        yield texts, pairs if paired else None


def _texts(file: str, run: Path, *, paired: bool) -> Iterator[tuple[str, str]]:
    """Yield text and second text (empty where there is none) of each row of `file`."""
    if file == "-" or Path(file).suffix.lower() in {".txt", ""}:
        if paired:
            raise UserError("pairs of texts need a .jsonl, .csv, .tsv or .parquet file with both columns")
        yield from ((line, "") for line in _lines(file))
        return
    from peftlab.data.readers import Role, read_table
    from peftlab.runs.folder import run_recipe

    data = run_recipe(run).data
    wanted: dict[Role, str] = {"text": data.text, **({"pair": data.pair} if data.pair is not None else {})}
    table = read_table(Path(file), wanted)
    seconds = table.columns["pair"] if paired else [""] * len(table)
    for line, text, second in zip(table.lines, table.columns["text"], seconds, strict=True):
        if not isinstance(text, str) or not text.strip() or not isinstance(second, str):
            raise UserError(
                f"{file}:{line}: expected a text, found {text!r}; every row is answered, so none may lack one"
            )
        yield text, second


def _lines(file: str) -> Iterator[str]:
    if file != "-" and not Path(file).is_file():
        raise UserError(f"there is no file {file}")
    try:
        with nullcontext(sys.stdin) if file == "-" else Path(file).open(encoding="utf-8") as source:
            for number, line in enumerate(source, start=1):
                text = line.rstrip("\r\n")
                if not text.strip():
                    raise UserError(
                        f"{file}:{number}: the line is empty; every line must hold a text, so that answers fit"
                    )
                yield text
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is not UTF-8 (byte {error.start}); convert it, as with: iconv -f GB18030 -t UTF-8"
        ) from error


def _line(text: str, row: dict[str, Any]) -> str:
    label = row["label"] if isinstance(row["label"], str) else ", ".join(row["label"]) or "-"
    best = max(row["probabilities"].values())
    return f"{label}\t{best:.4f}\t{text}"


if __name__ == "__main__":
    sys.exit(main())
