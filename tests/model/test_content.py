"""What was said, for people."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from mitml4.model.content import shown
from mitml4.model.protobuf import guess


def test_what_content_is_and_its_lines() -> None:
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x02"
    for content, content_type, kind, lines in (
        (b"", "text/html", "empty", []),
        (b'{"a": [1, "\xc3\xa9"]}', None, "json",
         ["{", '  "a": [', "    1,", '    "é"', "  ]", "}"]),
        (b"{not json}", "application/json", "text", ["{not json}"]),
        (b"a=1&b=%C3%A9&c=", "application/x-www-form-urlencoded; charset=x", "form",
         ["a = 1", "b = é", "c = "]),
        (b"a=1\r\nb", "text/plain", "text", ["a=1", "b"]),
        (png, "text/html", "PNG image, 640 x 480", []),
        (b"GIF89a\x01\0\x02\0", None, "GIF image, 1 x 2", []),
        (b"\xff\xd8\xff\xe0", None, "JPEG image", []),
        (b"RIFF\0\0\0\0WEBPVP8 ", None, "WebP image", []),
        (b"\x08\x96\x01\x12\x02\xff\xfe", "application/grpc+proto", "protobuf",
         ["1: 150", "2: 2 bytes ff fe"]),
        (b"\0\x01\xff" * 6, None, "binary",
         ["000000  00 01 ff 00 01 ff 00 01  ff 00 01 ff 00 01 ff 00  ................",
          "000010  01 ff                                             .."]),
    ):  # fmt: skip
        assert shown(content, content_type) == (kind, lines), (content, content_type)


def test_an_inner_message_is_indented() -> None:
    inner = b"\x08\x01\x15\x00\x00\x80\x3f"
    outer = b"\x0a\x04name" + b"\x12" + bytes([len(inner)]) + inner + b"\x19" + bytes(8)
    assert guess(outer) == [
        '1: "name"',
        *("2:", "  1: 1", "  2: 1 (0x3f800000)"),
        "3: 0 (0x0000000000000000)",
    ]
    for broken in (b"\x0a\x05name", b"\x07", b"\x00\x01", b"\x08" + b"\xff" * 11, b"\x0d\0"):
        assert guess(broken) == [], broken


@given(st.binary(max_size=200), st.sampled_from([None, "application/json", "application/grpc"]))
def test_any_content_has_lines(content: bytes, content_type: str | None) -> None:
    assert shown(content, content_type).kind


def test_deep_json_is_text() -> None:
    deep = "[" * 100_000
    assert shown(deep.encode()).kind == "text"
    assert shown(json.dumps([1]).encode()).kind == "json"


def test_json_keeps_its_numbers_and_its_repeated_names() -> None:
    text = '{"a":1.0E400,"a":12345678901234567890.10,"e":[],"o":{},"s":"\\u00e9\\"[,"}'
    kind, lines = shown(text.encode())
    assert (kind, lines) == (
        "json",
        ["{", '  "a": 1.0E400,', '  "a": 12345678901234567890.10,', '  "e": [],', '  "o": {},',
         '  "s": "é\\"[,"', "}"],
    )  # fmt: skip
    many = shown(b"[" + b"9" * 10_000 + b"]")
    assert many.lines[1] == "  " + "9" * 10_000


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(st.lists(_JSON) | st.dictionaries(st.text(max_size=3), _JSON))
def test_json_is_written_as_python_indents_it(value: object) -> None:
    expected = json.dumps(value, indent=2, ensure_ascii=False).split("\n")
    assert shown(json.dumps(value).encode()).lines == expected
