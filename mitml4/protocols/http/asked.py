"""The hosts that a request asks for: in its target, its Host fields, its :authority and :path.

A policy must not miss one, so this reads what lenient servers accept: a field name with blanks or
control characters around it, a bare CR as the end of a line and as a blank, a folded line both as
one line and as two. Where no port is given, it is the default of the scheme. The port of the
connection counts in any case, since many servers look only at the name.

Where the policy refuses nothing, as in a capture, no host is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from mitml4.protocols.conversation import End, LayerContext, Target, Unreadable
from mitml4.protocols.http.http1_heads import unfolded
from mitml4.protocols.policy import Closed
from mitml4.protocols.wire_text import whole_text
from mitml4.regex import regex
from mitml4.remember import remembered

__all__ = ["disagreeing", "is_elsewhere", "of_fields", "of_headers", "of_target"]

_DEFAULT_PORTS: Final = {b"http": 80, b"https": 443, b"ws": 80, b"wss": 443, b"ftp": 21}
# Behind a line end, also before the first field: with `^` as a choice, the search is twice as long.
_HOST_FIELD: Final = regex(rb"[\r\n][^!-~\r\n]*host[^!-~\r\n]*:([^\r\n]*)", re.IGNORECASE)
_ABSOLUTE: Final = regex(rb"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)([^/]*)")
_BARE_CR: Final = regex(rb"\r(?!\n)")
_BLANK: Final = regex(rb"\s")
_NO_HOST: Final = "HTTP: a request for a host that cannot be read"
# RFC 3986 §3.2. Servers differ on more than one @, and on a backslash.
_AUTHORITY: Final = regex(
    rb"(?:[^@\\]*@)?(?P<host>\[[^\]@\\]*\]|[^:@\\\[\]]+)(?::(?P<port>[0-9]{0,5}))?"
)
_ORIGIN_FORM: Final = regex(rb"[\s]*[^\s/:]+[ \t]+(?:/|\*[ \t])")
_REMEMBERED: Final = 512
_MAX_REMEMBERED_BYTES: Final = 256
"""So many authorities up to this length are cached, since most requests have the same."""


def of_target(target: bytes, context: LayerContext) -> list[End]:
    """The hosts of a request target, of any method but CONNECT (RFC 9112 §3.2)."""
    if target.startswith(b"/") or target == b"*" or context.policy.refuses_nothing:
        return []
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return [Unreadable(_NO_HOST)]
    default = _DEFAULT_PORTS.get(absolute[1].lower())
    authorities = {absolute[2]}
    if b"@" in absolute[3]:  # some servers look for it before they look for ? and #
        authorities.add(absolute[2] + absolute[3])
    ends = [end for each in authorities for end in _of_authority(each, context, default)]
    return [*ends, *([Unreadable(_NO_HOST)] if _BLANK.search(target) else [])]


def of_fields(section: bytes, context: LayerContext) -> list[End]:
    """The hosts of all Host fields of a header section."""
    if context.policy.refuses_nothing:
        return []
    sections = {section, unfolded(section)}
    if _BARE_CR.search(section):
        sections.add(unfolded(section.replace(b"\r", b" ")))
    fields = (_HOST_FIELD.findall(b"\n" + each) for each in sections)
    values = {value.strip() for found in fields for value in found} - {b""}
    return [end for value in sorted(values) for end in _of_authority(value, context, None)]


def disagreeing(hosts: Sequence[End], context: LayerContext) -> list[End]:
    """What the Host of a request to an origin server is refused for, where all but some hosts are:
    another host than that of the connection."""
    others = (each.host for each in hosts if isinstance(each, Target))
    if context.policy.means(*others):
        return []
    return [Closed("HTTP: a Host that the connection is not for")]


def of_headers(headers: Sequence[tuple[bytes, bytes]], context: LayerContext) -> list[End]:
    """The hosts of an HTTP/2 header block: every :authority, every host, and that of a :path which
    is a URL. A tunnel is `Closed`, as nobody reads what is in it, unless that is a WebSocket or the
    flow is for an address, which may be used for anything."""
    if context.policy.refuses_nothing:
        return []
    named = [(name.lower(), value) for name, value in headers if value]
    schemes = [value for name, value in named if name == b":scheme"]
    default = _DEFAULT_PORTS.get(schemes[0].lower()) if schemes else None
    values = [value for name, value in named if name in (b":authority", b"host")]
    ends = [end for value in values for end in _of_authority(value, context, default)]
    paths = [value for name, value in named if name == b":path"]
    ends += (end for path in paths for end in of_target(path, context))
    is_socket = any(name == b":protocol" and value.lower() == b"websocket" for name, value in named)
    is_tunnel = (b":method", b"CONNECT") in named and not is_socket
    if is_tunnel and context.policy.meant is not None:
        ends.append(Closed("HTTP/2: a tunnel, whose content is not read"))
    return ends


def is_elsewhere(data: bytes) -> bool:
    """Whether a request that cannot be read may ask for a host at another port than that of its
    connection: only one in origin-form does not."""
    return _ORIGIN_FORM.match(data) is None


def _of_authority(value: bytes, context: LayerContext, default: int | None) -> Iterator[End]:
    host, port, faults = _authority(value)
    yield from faults
    if host is None:
        return
    ports = [default if port is None else port, context.port]
    yield from (Target(host, each) for each in dict.fromkeys(ports) if each is not None)


@remembered(_REMEMBERED, _MAX_REMEMBERED_BYTES)
def _authority(value: bytes) -> tuple[str | None, int | None, tuple[End, ...]]:
    """Its host and its port, as far as it has them, and what is wrong with it."""
    authority = _AUTHORITY.fullmatch(value)
    if authority is None:
        return None, None, (Unreadable("HTTP: a host that cannot be read"),)
    # Servers that cut the value at its first colon find another host.
    faults = (Closed("HTTP: a host with user information"),) if b"@" in value else ()
    port = int(authority["port"]) if authority["port"] else None
    return whole_text(authority["host"]), port, faults
