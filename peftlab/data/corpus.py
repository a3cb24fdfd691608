"""Unlabelled text, passage by passage, from files of any size or a built-in set."""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from peftlab.data.sources import BUILTIN
from peftlab.errors import DataError
from peftlab.recipe.pretraining import Corpus

_BLOCK = 1 << 20
_ENDINGS = (".txt", ".jsonl")


@dataclass(frozen=True)
class Text:
    """The text that was found: its files in order, or the name of a built-in set, with a fingerprint of the content."""

    files: tuple[Path, ...]
    builtin: str | None
    text_key: str
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of its parts, for people."""
        return (self.builtin,) if self.builtin is not None else tuple(path.name for path in self.files)


def find_text(corpus: Corpus, *, recipe_path: Path) -> Text:
    """Return the text that `corpus` names; DataError where a file or pattern names nothing, or cannot be read."""
    if not corpus.files:
        if corpus.source not in BUILTIN:
            raise DataError(f"{recipe_path}: corpus names no text; expected files, or a source of {', '.join(BUILTIN)}")
        digest = hashlib.sha256(corpus.source.encode())
        for passage in _builtin(corpus.source):
            digest.update(passage.encode())
        return Text((), corpus.source, corpus.text, digest.hexdigest())
    files: dict[Path, None] = {}
    for pattern in corpus.files:
        files.update(dict.fromkeys(_matching(pattern, recipe_path)))
    digest = hashlib.sha256()
    for path in files:
        if not path.name.removesuffix(".gz").removesuffix(".xz").endswith(_ENDINGS):
            raise DataError(f"{path}: expected a .txt or .jsonl file, also with .gz or .xz behind it")
        with _readable(path), path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return Text(tuple(files), None, corpus.text, digest.hexdigest())


def passages(text: Text) -> Iterator[str]:
    """Yield each passage in order, without the white space around it; blank ones are left out.

    Holds one line at a time. Raises DataError with file and line for what is not UTF-8, no JSON object, or cut off.
    """
    if text.builtin is not None:
        yield from _builtin(text.builtin)
    for path in text.files:
        for number, line in _lines(path):
            passage = line.strip() if ".jsonl" not in path.name else _from_json(path, number, line, text.text_key)
            if passage:
                yield passage


def _matching(pattern: str, recipe_path: Path) -> list[Path]:
    """Return the files that `pattern` names, sorted: beside the recipe, else in the current folder."""
    given = Path(pattern).expanduser()
    places = list(dict.fromkeys(str(folder.resolve() / given) for folder in (recipe_path.parent, Path())))
    for place in places:
        if found := sorted(Path(name) for name in glob.glob(place) if Path(name).is_file()):  # noqa: PTH207 absolute
            return found
    raise DataError(f'corpus.files: "{pattern}" names no file; looked for {" and ".join(places)}')


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
    number = 0
    with _readable(path), cast(IO[bytes], openers.get(path.suffix, open)(path, "rb")) as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: byte 0x{line[error.start]:02x} is not UTF-8; convert the file, as with: "
                    f"iconv -f GB18030 -t UTF-8 {path.name} > utf8-{path.name}"
                ) from error
    if number == 0:
        raise DataError(f"{path}: is empty (0 bytes); expected lines of text")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what the operating system and the unpackers say of `path` into one sentence."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); copy or download it anew") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def _from_json(path: Path, number: int, line: str, key: str) -> str:
    if not line.strip():
        return ""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}:{number}: is not JSON ({error}); expected one object a line") from error
    if not isinstance(row, dict) or not isinstance(row.get(key), str):
        raise DataError(f'{path}:{number}: expected an object with a text under "{key}"; set corpus.text to its key')
    return cast(str, row[key]).strip()


def _builtin(name: str) -> Iterator[str]:
    from peftlab.data.tickets.generate import generate_tickets

    language: Any = BUILTIN[name]
    yield from (ticket.text for ticket in generate_tickets(language) if ticket.split == "train")
