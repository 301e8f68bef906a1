"""The names and addresses that programs may read in the text of a host.

Programs read the host of a URL, of a `Host` header or of a SOCKS request in different ways. A
policy that knows fewer ways than the server's program can be evaded, so all of these are known:

    EXAMPLE.com.  example。com    case, the final dot, full-width characters (UTS 46)
    straße.example               IDNA: xn--strae-oqa.example
    ex%61mple.com                percent-encoding
    172163587  10.67.515  0xa.1  inet_aton(3): one to four parts; decimal, octal, hexadecimal
    010.0.0.1                    8.0.0.1 for inet_aton, 10.0.0.1 for others: both
    [::ffff:10.0.0.1]            10.0.0.1, and so is 64:ff9b::10.0.0.1 (NAT64, RFC 6052)
    fe80::1%eth0                 the zone is ignored
    0.0.0.0  ::                  this host: the kernel connects to 127.0.0.1 and ::1
    localhost                    127.0.0.1 and ::1 (RFC 6761 §6.3), and the reverse
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final, TypeAlias
from urllib.parse import unquote

from mitml4.regex import regex
from mitml4.remember import remembered

__all__ = ["NAT64", "Host", "ascii_form", "readings", "written"]

Host: TypeAlias = str | IPv4Address | IPv6Address

_MAX_TEXT: Final = 2048
_MAX_NAME: Final = 253  # RFC 1035 §2.3.4, without the length bytes
_REMEMBERED: Final = 1024

# https://url.spec.whatwg.org/#forbidden-host-code-point, and the comma of a list.
_FORBIDDEN: Final = regex(r"[\x00-\x20\x7f#%/:<>?@\[\\\]^|,]")
_NUMBER: Final = regex(r"0x[0-9a-f]*|[0-9]+")
NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1
_LOOPBACK: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_LOCALHOST: Final = "localhost"


@remembered(_REMEMBERED, _MAX_TEXT)
def readings(text: str) -> tuple[Host, ...]:
    """All readings of a host; none if no program accepts it.

    An internationalised name is given in both of its forms.
    """
    return tuple(_with_aliases(written(text)))


def written(text: str) -> tuple[Host, ...]:
    """The readings without aliases (localhost and its addresses)."""
    if len(text) > _MAX_TEXT:
        return ()
    is_bracketed = text.startswith("[") and text.endswith("]")
    if is_bracketed or ":" in text:
        return tuple(_v6(text[1:-1] if is_bracketed else text))
    name = ascii_form(text)
    if name is None or _FORBIDDEN.search(name) or "" in name.split("."):
        return ()
    parts = name.split(".")
    if all(map(_NUMBER.fullmatch, parts)):
        return tuple(dict.fromkeys(_v4(parts)))
    shown = ".".join(map(_unicode_label, parts))
    return (name,) if shown == name else (name, shown)


def ascii_form(name: str) -> str | None:
    """A name in DNS's form: lower case, no final dot, `xn--…` for labels that are not ASCII.

    None if there is no such form. A label that contains `*` is unchanged.
    """
    try:
        name = unquote(name, errors="strict")
        if not name.isascii():
            # Imported late: its tables are large, and nearly every name is ASCII.
            import idna

            name = idna.uts46_remap(name, std3_rules=False)
    except UnicodeError:
        return None
    name = ".".join(map(_ascii_label, name.lower().rstrip(".").split(".")))
    return name if len(name) <= _MAX_NAME else None


def _ascii_label(label: str) -> str:
    if label.isascii() or "*" in label or len(label) > _MAX_NAME:
        return label
    return f"xn--{label.encode('punycode').decode('ascii')}"


def _unicode_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        return label


def _v4(parts: list[str]) -> Iterator[IPv4Address]:
    """As inet_aton reads them, and as programs do that have no octal numbers."""
    for octal in (8, 10):
        try:
            *first, last = (_number(part, octal) for part in parts)
        except ValueError:
            continue
        if len(first) <= 3 and max(first, default=0) <= 255 and last < 256 ** (4 - len(first)):
            value = sum(each << 8 * (3 - at) for at, each in enumerate(first))
            yield IPv4Address(value + last)


def _number(part: str, octal: int) -> int:
    """Raises ValueError for 8 or 9 in an octal number, and for more digits than Python reads."""
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, octal if part.startswith("0") else 10)


def _v6(literal: str) -> Iterator[Host]:
    try:
        address = IPv6Address(literal.partition("%")[0])
    except ValueError:
        return
    yield address
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    elif address in NAT64:
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _with_aliases(hosts: tuple[Host, ...]) -> Iterator[Host]:
    for host in hosts:
        yield host
        if isinstance(host, str):
            if host == _LOCALHOST or host.endswith(f".{_LOCALHOST}"):
                yield from _LOOPBACK
        elif host.is_loopback:
            yield _LOCALHOST
        elif host.is_unspecified:
            yield from (_LOOPBACK[host.version == 6], _LOCALHOST)
