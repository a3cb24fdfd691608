"""A file's bytes as text: gzip unpacked, UTF-8 insisted on, and a plain sentence where either fails."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from peftlab.errors import DataError

_MAGIC = {
    b"PAR1": "a Parquet file; give it the ending .parquet",
    b"\x1f\x8b": "a gzip file; add .gz to its name",
    b"PK\x03\x04": "a zip archive or an Excel workbook; save the table as UTF-8 CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the table as UTF-8 CSV",
}
# The longer marks come first: the mark of UTF-16-LE begins that of UTF-32-LE.
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_PROBED = 1 << 16  # bytes looked at to tell UTF-16 and UTF-32 without a mark


def read_bytes(path: Path) -> bytes:
    """Return the content of `path`; DataError for a folder, a file that may not be read, and an empty one."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; expected a data file, so name the file in it")
    try:
        content = path.read_bytes()
    except PermissionError as error:
        raise DataError(f"{path}: may not be read by this user; change its permissions (chmod u+r)") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the disk or copy the file anew") from error
    if not content:
        raise DataError(f"{path}: is empty (0 bytes); expected rows, so write or copy the file anew")
    return content


def unpack(path: Path, content: bytes) -> bytes:
    """Return the content of a gzip file unpacked; DataError where it is truncated, damaged, or no gzip file."""
    try:
        unpacked = gzip.decompress(content)
    except EOFError as error:
        raise DataError(f"{path}: the gzip file is cut off before its end; copy or download it anew") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        hint = (
            "copy or download it anew"
            if content.startswith(b"\x1f\x8b")
            else "it is not compressed, so take .gz off its name"
        )
        raise DataError(f"{path}: the gzip file cannot be unpacked ({error}); {hint}") from error
    if not unpacked:
        raise DataError(f"{path}: is empty (0 bytes after unpacking); expected rows, so write the file anew")
    return unpacked


def decode(path: Path, content: bytes) -> str:
    """Return `content` read as UTF-8 without its byte order mark; DataError for any other encoding.

    Single NUL bytes pass: they are the `broken_encoding` finding of the rows that hold them.
    """
    for magic, description in _MAGIC.items():
        if content.startswith(magic):
            raise DataError(f"{path}: expected UTF-8 text, but this is {description}")
    other = _wide_encoding(content)
    if other is not None:
        raise DataError(f"{path}: is encoded as {other}; expected UTF-8, so convert it: {_conversion(path, other)}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} at offset {error.start} of the file is not UTF-8; "
            f"{_advice(path, content)}"
        ) from error


def _wide_encoding(content: bytes) -> str | None:
    """Name UTF-16 or UTF-32 where `content` is so encoded.

    Without a mark: line ends, digits and Latin letters have a NUL byte in every second place of UTF-16 and in three
    of four places of UTF-32; with other letters it is not well-formed UTF-8. NUL bytes that stray into UTF-8 are few,
    or stand at odd and even places alike.
    """
    for mark, name in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return name
    head = content[:_PROBED]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    share = (even + odd) / len(head)
    if share < 0.05 or (share < 0.4 and _decodes(content, "utf-8")):
        return None
    if share > 0.55:
        return (
            ("UTF-32-BE" if content[0] == 0 else "UTF-32-LE") if _decodes(content, "utf-32-le", "utf-32-be") else None
        )
    if min(even, odd) > 0.1 * max(even, odd):
        return None
    return "UTF-16-BE" if even > odd else "UTF-16-LE"


def _advice(path: Path, content: bytes) -> str:
    if _decodes(content, "gb18030"):
        return f"it may be GB18030: {_conversion(path, 'GB18030')}"
    return f"convert the file to UTF-8 (if it is Windows-1252: {_conversion(path, 'WINDOWS-1252')})"


def _decodes(content: bytes, *encodings: str) -> bool:
    for encoding in encodings:
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return True
    return False


def _conversion(path: Path, encoding: str) -> str:
    name = path.name.removesuffix(".gz")
    return f"iconv -f {encoding} -t UTF-8 {name} > utf8-{name}"
