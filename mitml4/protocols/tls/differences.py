"""How two ClientHellos differ: the client's own, and the one that the server got in its place.

Values that change with every hello (random, keys, tickets) and the numbers chosen for GREASE do not
count as differences. Whether there is GREASE at all does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mitml4.protocols.tls.hello import ClientHello
from mitml4.protocols.tls.names import (
    cipher_name,
    extension_name,
    group_name,
    signature_algorithm_name,
    version_name,
    without_grease,
)

__all__ = ["differences", "lacks"]

Numbers = tuple[int, ...]
Field = tuple[str, Callable[[ClientHello], Numbers], Callable[[int], str]]

_CIPHERS: Final[Field] = ("cipher", lambda hello: hello.cipher_suites, cipher_name)
_GROUPS: Final[Field] = ("group", lambda hello: hello.groups, group_name)
_SIGNATURES: Final[Field] = (
    "signature_algorithm",
    lambda hello: hello.signature_algorithms,
    signature_algorithm_name,
)
_LISTS: Final[tuple[Field, ...]] = (
    ("version", lambda hello: hello.versions, version_name),
    _CIPHERS,
    ("extension", lambda hello: hello.extensions, extension_name),
    _GROUPS,
    ("key_share", lambda hello: hello.key_shares, group_name),
    _SIGNATURES,
    (
        "certificate_signature_algorithm",
        lambda hello: hello.signature_algorithms_cert,
        signature_algorithm_name,
    ),
)
_REST: Final[tuple[tuple[str, Callable[[ClientHello], object]], ...]] = (
    ("legacy_version", lambda hello: hello.legacy_version),
    ("session_id", lambda hello: bool(hello.session_id)),
    ("compression", lambda hello: hello.compression),
    ("point_formats", lambda hello: hello.point_formats),
    ("alpn", lambda hello: hello.alpn),
)
_SIGNALS: Final = frozenset({0x00FF, 0x5600})
"""RFC 5746 §3.3, RFC 7507: values in the list of cipher suites that are no suites."""


def differences(client: ClientHello, server_got: ClientHello) -> tuple[str, ...]:
    """The differences in words. `extension padding`: only the client has it; `extension padding
    (added)`: only the server's hello has it; `extension_order`: both have them in another order;
    `grease`; `point_formats`."""
    return tuple(_differences(client, server_got))


def lacks(client: ClientHello, server_got: ClientHello) -> bool:
    """Whether a server may have failed because its hello lacks a suite, group or signature
    algorithm that the client offers."""
    return any(
        set(without_grease(of(client))) - set(of(server_got)) - _SIGNALS
        for _, of, _ in (_CIPHERS, _GROUPS, _SIGNATURES)
    )


def _differences(client: ClientHello, server_got: ClientHello) -> Iterator[str]:
    for numbers in (client.cipher_suites, client.extensions, client.groups):
        if without_grease(numbers) != numbers:
            yield "grease"
            break
    for what, of, name in _LISTS:
        said, got = without_grease(of(client)), of(server_got)
        if said != got and (what == "extension" or (said and got)):
            yield from _list_differences(what, said, got, name)
    for what, value in _REST:
        if value(client) != value(server_got):
            yield what


def _list_differences(
    what: str, said: Numbers, got: Numbers, name: Callable[[int], str]
) -> Iterator[str]:
    """A list that only one of the two has is reported as an extension."""
    in_said, in_got = set(said), set(got)
    yield from (f"{what} {name(each)}" for each in said if each not in in_got)
    yield from (f"{what} {name(each)} (added)" for each in got if each not in in_said)
    if [each for each in said if each in in_got] != [each for each in got if each in in_said]:
        yield f"{what}_order"
