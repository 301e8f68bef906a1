"""Whether bytes are text, and in which charset.

The charset is the first of these that fits all bytes: that of a byte order mark; UTF-8, for
JSON; that of the Content-Type; that of the document (HTML's <meta>, XML's declaration); UTF-8; the
one that charset-normalizer finds. No byte is replaced: if no charset fits, base64 is shown.
"""

from __future__ import annotations

import codecs
import re
from base64 import b64encode
from collections.abc import Iterator
from encodings.aliases import aliases
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.regex import regex

__all__ = ["LATE_IMPORTS", "PayloadText", "Shown", "base64_of", "shown", "shown_data", "shown_text"]

_DETECTED: Final = (
    *("cp1252", "cp1251", "koi8_r", "cp932", "euc_jp", "gb18030", "big5", "cp949", "cp1250"),
    *("cp1253", "cp1254", "cp1255", "cp1256"),
)
"""The charsets that are looked for where none is named, the most frequent first."""
_CODECS: Final = frozenset(
    {
        *_DETECTED,
        *("ascii", "utf_8", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le"),
        *("utf_32_be", "latin_1", "gb2312", "gbk", "hz", "big5hkscs", "shift_jis", "euc_kr"),
        *("iso2022_jp", "iso2022_kr", "koi8_u", "cp866", "cp874", "cp1257", "cp1258"),
        *("mac_roman", "mac_cyrillic", "tis_620"),
        *(f"iso8859_{part}" for part in (*range(2, 12), *range(13, 17))),
    }
)
"""The names of Python's modules. Others stand for no charset, such as `rot_13`."""
LATE_IMPORTS: Final = ("charset_normalizer", *(f"encodings.{name}" for name in sorted(_CODECS)))
"""What is imported when it is first used."""

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF32_LE, "utf_32_le"),  # before that of UTF-16, which it begins with
    (codecs.BOM_UTF16_LE, "utf_16_le"),
    (codecs.BOM_UTF32_BE, "utf_32_be"),
    (codecs.BOM_UTF16_BE, "utf_16_be"),
)
# https://encoding.spec.whatwg.org/#names-and-labels: these labels stand for windows-1252.
_LATIN: Final = frozenset({"latin_1", "ascii"})
_CHARSET: Final = regex(rb""";\s*charset\s*=\s*["']?([^\s"';,]+)""", re.IGNORECASE)
_META: Final = regex(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([^\s"'/>;]+)""", re.IGNORECASE)
_XML: Final = regex(rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([^"']+)["']""")
_HEAD: Final = 1024
"""Where a document names its charset (HTML, "prescan a byte stream")."""
_SAMPLE: Final = 4096
"""Bytes from which a charset is detected."""
_LONGEST_CHARACTER: Final = 4
"""Bytes of one character in any of the charsets that are looked for."""
_NOT_ASCII: Final = regex(rb"[\x80-\xff]")
_CONTROL: Final = regex(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
"""Control characters that no text has: all but white space and escape sequences."""

_TEXT: Final = regex(
    rb"text/|(?:application|model|image)/[^;\s]*\+(?:xml|json|yaml)(?:[;\s]|$)"
    rb"|application/(?:json|xml|xhtml|javascript|ecmascript|x-javascript|x-www-form-urlencoded"
    rb"|graphql|yaml|x-yaml|toml|sql|x-ndjson|jsonl|json-seq|problem|manifest|sdp|x-sh|csp-report"
    rb"|x-httpd-php|x-mpegurl|vnd\.apple\.mpegurl)",
    re.IGNORECASE,
)
_JSON: Final = regex(rb"[^;]*[/+](?:x-)?(?:nd)?json", re.IGNORECASE)
_BINARY: Final = regex(
    rb"(?:image|audio|video|font|model)/|application/(?:octet-stream|grpc|pdf|zip|gzip|x-gzip"
    rb"|zstd|wasm|x-protobuf|protobuf|vnd\.google\.protobuf|cbor|msgpack|x-msgpack|vnd\.msgpack"
    rb"|x-tar|x-7z|x-bzip|x-xz|font|x-font|ocsp|pkix|pkcs|x-x509|java-archive|x-shockwave"
    rb"|x-git|vnd\.ms-|vnd\.openxml|vnd\.oasis|dns-message)",
    re.IGNORECASE,
)


class PayloadText(str):
    """A text in an event that has its own bound, and is not cut at that of other texts."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Bytes as text, or else in base64."""

    text: PayloadText | None = None
    base64: PayloadText | None = None
    charset: str | None = None
    """Of the text, by its name at IANA."""


def base64_of(data: bytes) -> PayloadText:
    return PayloadText(b64encode(data).decode())


def shown_text(data: bytes, *, truncated: bool = False) -> Shown:
    """Bytes that shall be UTF-8, such as a text message of a WebSocket. Every character is shown,
    also a byte order mark."""
    return _decoded(data, "utf_8", truncated) or Shown(base64=base64_of(data))


def shown_data(data: bytes) -> Shown:
    """Bytes of which nothing is known."""
    is_binary = _CONTROL.search(data.decode("latin-1"))
    return Shown(base64=base64_of(data)) if is_binary else shown_text(data)


def shown(data: bytes, content_type: bytes | None, *, truncated: bool = False) -> Shown:
    """Bytes of this Content-Type. `truncated`: they may end in the middle of a character. A byte
    order mark is not shown."""
    media_type = (content_type or b"").strip()
    is_text = _TEXT.match(media_type) is not None
    if is_text or not _BINARY.match(media_type):
        for charset in _named(data, media_type):
            found = _decoded(data, charset, truncated)
            if found and (is_text or not _CONTROL.search(found.text or "")):
                return _without_mark(found)
        if found := _undeclared(data, truncated, is_text=is_text):
            return found
    return Shown(base64=base64_of(data))


def _without_mark(found: Shown) -> Shown:
    text = PayloadText((found.text or "").removeprefix("\ufeff"))
    return Shown(text=text, charset=found.charset)


def _undeclared(data: bytes, truncated: bool, *, is_text: bool) -> Shown | None:
    if b"\0" in data or (not is_text and _CONTROL.search(data.decode("latin-1"))):
        return None
    found = _decoded(data, "utf_8", truncated)
    if found is None and is_text and (name := _detected(data)):
        found = _decoded(data, name, truncated)
    return found


def _named(data: bytes, media_type: bytes) -> Iterator[str]:
    """The charsets that are named, the most credible first."""
    yield from (name for mark, name in _MARKS if data.startswith(mark))
    if _JSON.match(media_type) and b"\0" not in data:
        yield "utf_8"  # RFC 8259 §8.1: "MUST be encoded using UTF-8"
    if declared := _CHARSET.search(media_type):
        yield from _codec(declared[1])
    kind = media_type.lower()
    declaration = _XML.match(data[:_HEAD].lstrip()) if b"xml" in kind else None
    if b"html" in kind:
        declaration = declaration or _META.search(data[:_HEAD])
    if declaration:
        for name in _codec(declaration[1]):
            # A declaration that can be read is not in UTF-16.
            yield "utf_8" if name.startswith(("utf_16", "utf_32")) else name


def _codec(label: bytes) -> Iterator[str]:
    """Python's name of a charset, if it is one."""
    name = label.decode("ascii", "replace").lower().replace("-", "_").replace(" ", "_")
    for each in (name, name.removeprefix("x_"), name.removeprefix("windows_")):
        codec = aliases.get(each, each)
        if codec in _CODECS:
            yield codec
            return


def _detected(data: bytes) -> str | None:
    """The charset that charset-normalizer finds, from a sample around the first byte that is not
    ASCII. Where windows-1252 fits as well as others of Latin letters, it is that."""
    from charset_normalizer import from_bytes

    first = _NOT_ASCII.search(data)
    start = max(0, first.start() - _SAMPLE // 4) if first else 0
    for end in range(start + _SAMPLE, start + _SAMPLE - _LONGEST_CHARACTER, -1):
        matches = from_bytes(data[start:end], cp_isolation=list(_DETECTED))
        if best := matches.best():
            break
    else:  # not even without a part of a character at the end
        return None
    equal = [
        each for each in matches if (each.chaos, each.coherence) == (best.chaos, best.coherence)
    ]
    names = {name for each in equal for name in (each.encoding, *each.could_be_from_charset)}
    return "cp1252" if "cp1252" in names else best.encoding


def _decoded(data: bytes, codec: str, truncated: bool) -> Shown | None:
    """The text; None if the bytes are not in this charset."""
    if codec in _LATIN and (found := _decoded(data, "cp1252", truncated)):
        return found
    try:
        text = codecs.getincrementaldecoder(codec)().decode(data, final=not truncated)
    except UnicodeError:
        return None
    return Shown(text=PayloadText(text), charset=_iana(codec))


def _iana(codec: str) -> str:
    name = codec.replace("_", "-")
    if name.startswith("cp12"):
        return f"windows-{name[2:]}"
    return name.replace("iso8859-", "iso-8859-").replace("iso2022", "iso-2022")
