"""JA3, JA3S, JA4 and JA4S: fingerprints of TLS implementations, made from their hellos.

JA3 and JA3S are Salesforce's (https://github.com/salesforce/ja3, BSD); JA4 is FoxIO's
(https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md, BSD). JA4S follows FoxIO's
public description (…/technical_details/JA4S.md), a method that FoxIO licenses under its FoxIO
License 1.1, which asks for an agreement where it is sold as part of a product.
"""

from __future__ import annotations

import hashlib
import string
from functools import lru_cache
from typing import Final, Literal

from mitml4.protocols.tls.hello import ClientHello, Extension, ServerHello
from mitml4.protocols.tls.names import is_grease, without_grease
from mitml4.remember import remembered

__all__ = ["ja3", "ja3_text", "ja3s", "ja3s_text", "ja4", "ja4s", "kind_of_client"]

_JA4_VERSIONS: Final = {
    0x0304: "13",
    0x0303: "12",
    0x0302: "11",
    0x0301: "10",
    0x0300: "s3",
    0x0002: "s2",
    0xFEFF: "d1",
    0xFEFD: "d2",
    0xFEFC: "d3",
}
_ALPHANUMERIC: Final = frozenset((string.digits + string.ascii_letters).encode())
_NOTHING: Final = "0" * 12
"""What JA4 has in place of the hash of an empty list."""
_OF_ONE_CONNECTION: Final = frozenset(
    {Extension.PADDING, Extension.PRE_SHARED_KEY, Extension.EARLY_DATA, Extension.COOKIE}
)
_REMEMBERED: Final = 256
"""The size of caches: a client's hellos repeat, apart from GREASE and the name."""
_MAX_LENGTH: Final = 1024
"""The length of a list or text up to which it is cached."""


def ja3_text(hello: ClientHello) -> str:
    """`version,ciphers,extensions,groups,point formats` in decimal, without GREASE."""
    fields = (hello.cipher_suites, hello.extensions, hello.groups, hello.point_formats)
    return ",".join([str(hello.legacy_version), *(_decimal(field) for field in fields)])


def ja3(hello: ClientHello) -> str:
    """The MD5 of `ja3_text`, in hex."""
    return _md5(ja3_text(hello))


def ja3s_text(hello: ServerHello) -> str:
    """`version,cipher,extensions` in decimal."""
    return f"{hello.legacy_version},{hello.cipher_suite},{_decimal(hello.extensions)}"


def ja3s(hello: ServerHello) -> str:
    """The MD5 of `ja3s_text`, in hex."""
    return _md5(ja3s_text(hello))


def ja4(hello: ClientHello, transport: Literal["t", "q", "d"] = "t") -> str:
    """`t13d1516h2_8daaf6152771_e5627efa2ab1`; QUIC is `q`, DTLS `d`."""
    return _ja4(hello, hello.extensions, transport)


def kind_of_client(hello: ClientHello) -> str:
    """A JA4 of the part that all hellos of a client share, including those that resume a
    session."""
    return _ja4(hello, _of_all_connections(hello.extensions))


@remembered(_REMEMBERED, _MAX_LENGTH)
def _of_all_connections(extensions: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(each for each in extensions if each not in _OF_ONE_CONNECTION)


def _ja4(hello: ClientHello, sent: tuple[int, ...], transport: str = "t") -> str:
    newest = min(hello.versions) if transport == "d" else max(hello.versions)
    alpn = hello.alpn[0] if hello.alpn else b""
    lists = tuple(map(without_grease, (hello.cipher_suites, sent, hello.signature_algorithms)))
    of_lists = _ja4_of_lists if sum(map(len, lists)) <= _MAX_LENGTH else _ja4_of_lists.__wrapped__
    return of_lists(f"{transport}{_JA4_VERSIONS.get(newest, '00')}", *lists, _ends(alpn))


@lru_cache(_REMEMBERED)
def _ja4_of_lists(
    begins: str,
    ciphers: tuple[int, ...],
    extensions: tuple[int, ...],
    algorithms: tuple[int, ...],
    alpn: str,
) -> str:
    """Of lists without GREASE. `begins`: the transport and the version; `alpn`: its two letters."""
    hashed = _hexes(tuple(sorted({*extensions} - {Extension.SERVER_NAME, Extension.ALPN})))
    if hashed and algorithms:
        hashed += "_" + _hexes(algorithms)
    return (
        f"{begins}{'d' if Extension.SERVER_NAME in extensions else 'i'}"
        f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}{alpn}"
        f"_{_sha256(_hexes(tuple(sorted(ciphers))))}_{_sha256(hashed)}"
    )


def ja4s(hello: ServerHello) -> str:
    """`t120400_c030_4e8089b08790`."""
    return (
        f"t{_JA4_VERSIONS.get(hello.version, '00')}"
        f"{min(len(hello.extensions), 99):02}{_ends(hello.alpn or b'')}"
        f"_{hello.cipher_suite:04x}_{_sha256(_hexes(hello.extensions))}"
    )


def _ends(alpn: bytes) -> str:
    """The first and last character of an ALPN name, or of its hex form if they are not
    alphanumeric."""
    if not alpn:
        return "00"
    if alpn[0] in _ALPHANUMERIC and alpn[-1] in _ALPHANUMERIC:
        return chr(alpn[0]) + chr(alpn[-1])
    return alpn.hex()[0] + alpn.hex()[-1]


@remembered(_REMEMBERED, _MAX_LENGTH)
def _decimal(numbers: tuple[int, ...]) -> str:
    return "-".join(str(number) for number in numbers if not is_grease(number))


@remembered(_REMEMBERED, _MAX_LENGTH)
def _hexes(numbers: tuple[int, ...]) -> str:
    return ",".join(f"{number:04x}" for number in numbers)


@remembered(_REMEMBERED, _MAX_LENGTH)
def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@remembered(_REMEMBERED, _MAX_LENGTH)
def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else _NOTHING
