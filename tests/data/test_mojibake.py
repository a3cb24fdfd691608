"""Texts that were decoded wrongly are found, and plain text in many scripts is left alone."""

from __future__ import annotations

import pytest

from peftlab.data.mojibake import is_broken

PLAIN = [
    "The parcel is late, isn't it?",
    "快递到哪里了？优惠券用不了，系统是不是坏了",
    "联通的客服电话打不通，移动和联通哪个好",  # its first word is well-formed UTF-8 as GBK bytes
    "L’été, « Noël » à Saint‑Étienne… 20 €",
    "“CAFÉ” Ürün şöyle böyle, Straße, São Tomé, IJ",
    "Где моя посылка? Δεν λειτουργεί. 払い戻しはいつですか？ 환불 언제 되나요",
    "tab\tand\nline ends\r\nare fine 🙂",
]


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_is_not_called_broken(text: str) -> None:
    assert not is_broken(text)


@pytest.mark.parametrize(
    ("written", "read", "text"),
    [
        ("utf-8", "latin-1", "naïve café"),
        ("utf-8", "cp1252", "it’s late"),
        ("utf-8", "latin-1", "快递到哪里了"),
        ("gbk", "latin-1", "快递到哪里了"),
        ("utf-8", "gb18030", "优惠券用不了"),
        ("utf-8", "gb18030", "我们的产品"),
    ],
)
def test_text_read_with_the_wrong_encoding_is_broken(written: str, read: str, text: str) -> None:
    mangled = text.encode(written).decode(read, "ignore")
    assert mangled != text
    assert is_broken(mangled)
    assert is_broken(f"before {mangled} behind")


@pytest.mark.parametrize("character", ["\ufffd", "\0", "\x07", "\x1b", "\x7f", "\x85", "\x9d"])
def test_replacement_and_control_characters_are_broken(character: str) -> None:
    assert is_broken(f"a{character}b")
