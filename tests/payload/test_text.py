from __future__ import annotations

import json
from base64 import b64decode

from hypothesis import given
from hypothesis import strategies as st

from mitml4.payload.text import LATE_IMPORTS, shown, shown_text

RUSSIAN = "Привет мир, это простой текст на русском языке. " * 3
FRENCH = "Où est l'été à la française? Un élève déjà naïf. " * 3
JAPANESE = "これは日本語の文章です。東京は大きい都市です。" * 3

# name: (bytes, Content-Type, text, charset)
TEXTS: dict[str, tuple[bytes, bytes | None, str, str]] = {
    "by header": (RUSSIAN.encode("koi8-r"), b"text/plain; charset=koi8-r", RUSSIAN, "koi8-r"),
    "in quotes": (b"\xe4", b'text/plain;Charset="ISO-8859-1" ; x=y', "ä", "windows-1252"),
    "C1 in Latin 1": (b"\x93a\x94", b"text/plain; charset=latin1", "“a”", "windows-1252"),
    "no windows-1252": (b"\x81", b"text/plain; charset=iso-8859-1", "\x81", "latin-1"),
    "a windows label": ("ё".encode("cp1251"), b"text/a;charset=windows-1251", "ё", "windows-1251"),
    "an x- label": ("あ".encode("shift_jis"), b"text/a; charset=x-sjis", "あ", "shift-jis"),
    "GB 2312": ("中文".encode("gb2312"), b"text/plain; charset=GB2312", "中文", "gb2312"),
    "UTF-16": ("héé".encode("utf-16-be"), b"text/plain; charset=utf-16be", "héé", "utf-16-be"),
    "a mark": (b"\xef\xbb\xbfh\xc3\xa9", b"text/html; charset=iso-8859-1", "hé", "utf-8"),
    "a mark of UTF-16": ("\ufeffhé".encode("utf-16-le"), b"text/csv", "hé", "utf-16-le"),
    "a mark of UTF-16BE": ("\ufeffhé".encode("utf-16-be"), None, "hé", "utf-16-be"),
    "by meta": (
        b"<meta charset=cp1251>\xef",
        b"text/html",
        "<meta charset=cp1251>п",
        "windows-1251",
    ),
    "by http-equiv": (
        b"<meta http-equiv='Content-Type' content='text/html; charset=koi8-r'>\xc1",
        b"text/html",
        "<meta http-equiv='Content-Type' content='text/html; charset=koi8-r'>а",
        "koi8-r",
    ),
    "by XML": (
        b"<?xml version='1.0' encoding='iso-8859-2'?><a>\xb1</a>",
        b"application/atom+xml",
        "<?xml version='1.0' encoding='iso-8859-2'?><a>ą</a>",
        "iso-8859-2",
    ),
    "no UTF-16 whatever it says": (
        b"<meta charset=utf-16>",
        b"text/html",
        "<meta charset=utf-16>",
        "utf-8",
    ),
    "not in a stylesheet": (
        b"<meta charset=cp1251>\xc3\xa9",
        b"text/css",
        "<meta charset=cp1251>é",
        "utf-8",
    ),
    "a wrong header": ("é".encode(), b"text/plain; charset=ascii", "Ã©", "windows-1252"),
    "a header that does not fit": (
        FRENCH.encode("cp1252"),
        b"text/plain; charset=utf-8",
        FRENCH,
        "windows-1252",
    ),
    "an unknown charset": ("é".encode(), b"text/plain; charset=klingon", "é", "utf-8"),
    "a codec that is no charset": (b"abc", b"text/plain; charset=rot13", "abc", "utf-8"),
    "JSON": (
        json.dumps({"a": "é"}, ensure_ascii=False).encode(),
        b"application/json; charset=latin1",
        '{"a": "é"}',
        "utf-8",
    ),
    "JSON of another charset": (
        b'"\xe9"',
        b"application/json; charset=latin1",
        '"é"',
        "windows-1252",
    ),
    "JSON in UTF-16": (
        '{"a": "é"}'.encode("utf-16-le"),
        b"application/json; charset=utf-16le",
        '{"a": "é"}',
        "utf-16-le",
    ),
    "JSON in a sequence": (b"\x1e{}\n", b"application/json-seq", "\x1e{}\n", "utf-8"),
    "controls in a text": (b"b\bold\x7f\x1f", b"text/plain", "b\bold\x7f\x1f", "utf-8"),
    "problem+json": (b"{}", b"application/problem+json", "{}", "utf-8"),
    "no type": (b"plain", None, "plain", "utf-8"),
    "another type": (b"a=b", b"application/x-new", "a=b", "utf-8"),
    "SVG": (b"<svg/>", b"image/svg+xml", "<svg/>", "utf-8"),
    "a form": (b"a=%20", b"application/x-www-form-urlencoded", "a=%20", "utf-8"),
    "detected Russian": (RUSSIAN.encode("cp1251"), b"text/plain", RUSSIAN, "windows-1251"),
    "detected French": (FRENCH.encode("cp1252"), b"text/html", FRENCH, "windows-1252"),
    "detected Japanese": (JAPANESE.encode("euc-jp"), b"text/html", JAPANESE, "euc-jp"),
    "a NUL in a declared text": (b"a\0b", b"text/plain; charset=utf-8", "a\0b", "utf-8"),
    "escapes": (b"\x1b[1mbold\x1b[0m\r\n", b"text/plain", "\x1b[1mbold\x1b[0m\r\n", "utf-8"),
    "nothing": (b"", b"text/plain", "", "utf-8"),
}


def test_a_charset_is_found_wherever_the_text_has_other_letters() -> None:
    for text, codec in ((RUSSIAN, "cp1251"), (JAPANESE, "euc_jp"), (JAPANESE, "cp932")):
        for before in ("", "x", "ASCII only. " * 700):
            for length in (5000, 5001, 5002, 5003):
                data = (before + text * 100).encode(codec)[: len(before) + length]
                found = shown(data, b"text/plain", truncated=True)
                assert found.text is not None
                assert (before + text * 100).startswith(found.text), (codec, len(before), length)


BINARIES: dict[str, tuple[bytes, bytes | None]] = {
    "an image": (b"P6 1 1 255", b"image/x-portable-pixmap"),
    "octets that look like text": (b"abc", b"application/octet-stream"),
    "a protobuf": (b"abc", b"application/x-protobuf"),
    "a font": (b"wOF2", b"font/woff2"),
    "no type": (b"\x80\x81", None),
    "a NUL, no type": (b"a\0b", None),
    "a NUL in a text without a charset": (b"a\0b", b"text/plain"),
    "what begins like a mark": (b"\xff\xfe\x01\x00\x02\x00", None),
    "an unknown type": (b"\xff\xfb\x90\x44", b"application/x-new"),
    "a form with a file": (b"--x\r\n\r\n\x89PNG\r\n\x1a\n\0", b"multipart/form-data; boundary=x"),
}


def test_text_is_read_in_its_charset() -> None:
    for name, (data, content_type, text, charset) in TEXTS.items():
        found = shown(data, content_type)
        assert (found.text, found.base64, found.charset) == (text, None, charset), name


def test_what_is_no_text_is_base64() -> None:
    for name, (data, content_type) in BINARIES.items():
        found = shown(data, content_type)
        assert (found.text, found.charset) == (None, None), name
        assert b64decode(found.base64 or "") == data, name


@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    cut=st.integers(0, 400),
)
def test_a_cut_within_a_character_leaves_a_text(text: str, cut: int) -> None:
    for codec, label in {
        "utf-8": b"utf-8",
        "utf-16-le": b"utf-16le",
        "gb18030": b"gb18030",
    }.items():
        data = text.encode(codec)[:cut]
        found = shown(data, b"text/plain; charset=" + label, truncated=True)
        assert found.text is not None
        assert text.removeprefix("\ufeff").startswith(found.text)
        found = shown(text.encode(codec), b"text/plain; charset=" + label)
        assert found.text == text.removeprefix("\ufeff")


def test_only_a_cut_excuses_half_a_character() -> None:
    half = "é".encode()[:1]
    assert shown(b"caf" + half, b"application/json", truncated=True).text == "caf"
    assert shown(b"caf" + half, None).base64
    assert shown_text(b"caf" + half, truncated=True).text == "caf"
    assert shown_text(b"caf" + half).base64


@given(data=st.binary(max_size=60), content_type=st.binary(max_size=60))
def test_any_bytes_of_any_type_are_shown(data: bytes, content_type: bytes) -> None:
    for kind in (content_type, b"text/html; charset=" + content_type):
        found = shown(data, kind)
        assert (found.text is None) != (found.base64 is None)
        if found.base64 is not None:
            assert b64decode(found.base64) == data


def test_all_that_is_imported_late_can_be() -> None:
    import importlib

    for name in LATE_IMPORTS:
        importlib.import_module(name)
