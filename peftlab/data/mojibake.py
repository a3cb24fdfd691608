"""Signs that a text was once decoded with the wrong encoding, or holds what is no text."""

from __future__ import annotations

import re

# U+FFFD and control characters other than tab and line ends. U+0080-U+009F are control characters, too.
_NOT_TEXT = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# With the private use area, into which a decoder of GBK puts the codes that have no character.
_HAN_RUN = re.compile("[\u2e80-\ud7ff\ue000-\ufaff]{4,}")
_TWO_OF_THREE_BYTES = re.compile("[\u0800-\ud7ff\ue000-\uffff]{2}")


def is_broken(text: str) -> bool:
    """Say whether `text` holds replacement or control characters, or was decoded with the wrong encoding.

    UTF-8 read as Latin-1, Windows-1252 and their kin is left to the heuristic of ftfy (Speer 2019); UTF-8 read as
    GBK, which ftfy does not look for, to `_utf8_read_as_gbk`.
    """
    if _NOT_TEXT.search(text):
        return True
    if text.isascii():
        return False
    from ftfy.badness import is_bad

    return bool(is_bad(text)) or _utf8_read_as_gbk(text)


def _utf8_read_as_gbk(text: str) -> bool:
    """Say whether four or more Han characters in a row are, as GBK bytes, well-formed UTF-8 of such characters.

    The GBK bytes of running Chinese are not: a three-byte sequence of UTF-8 needs a first byte in E0-EF and a second
    one in 80-BF, but the second byte of a GB 2312 character is A1 or above and the frequent ones begin at B0-D7.
    """
    for run in _HAN_RUN.findall(text):
        content = run.encode("gb18030")
        try:
            decoded = content.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":  # an odd number of bytes leaves the last character cut
                continue
            decoded = content[: error.start].decode("utf-8")
        if _TWO_OF_THREE_BYTES.search(decoded):
            return True
    return False
