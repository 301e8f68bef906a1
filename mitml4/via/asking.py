"""How a proxy is asked for a connection: HTTP CONNECT (RFC 9110 §9.3.6), SOCKS4 and 4a, SOCKS5
(RFC 1928, RFC 1929).

Only the bytes of the proxy's answer are consumed. So those behind it, which are the server's, stay
in the kernel where they are: layers peek at them and splice them as on any other connection.
"""

from __future__ import annotations

import base64
import errno
import ipaddress
from typing import Final, NoReturn

import h11

from mitml4.dataclass import dataclass
from mitml4.net.stream import Stream, StreamTruncated, UrgentAhead
from mitml4.printable import printable
from mitml4.protocols import socks4, socks5
from mitml4.regex import regex
from mitml4.via.proxy import Proxy

__all__ = ["Destination", "ask", "refusal"]

_NAME: Final = regex(r"[A-Za-z0-9._-]{1,253}")
_MAX_HEAD: Final = 32 * 1024
"""Bytes; an answer to CONNECT with a longer head is none."""

_ERRORS_OF_HTTP: Final = {504: errno.ETIMEDOUT}
_ERRORS_OF_SOCKS5: Final = {
    3: errno.ENETUNREACH,
    4: errno.EHOSTUNREACH,
    6: errno.EHOSTUNREACH,  # as Linux takes ICMP's "time exceeded" (net/ipv4/icmp.c)
    8: errno.ENETUNREACH,
}
"""What the client sees where that is not a refusal."""


@dataclass(frozen=True, slots=True)
class Destination:
    """What a proxy is asked for: an address or a name, or both of one host, and a port."""

    port: int
    address: str | None
    name: str | None = None

    def host(self, proxy: Proxy) -> str:
        """As this proxy is asked. The address where there is no name that all proxies read."""
        if self.name and _NAME.fullmatch(self.name) and (proxy.takes_names or not self.address):
            return self.name
        return self.address or self.name or ""


async def ask(stream: Stream, proxy: Proxy, destination: Destination) -> None:
    """Ask the proxy at the other end for a connection; afterwards the stream is that connection.

    Raises the OSError that the client is to see, with the reason as its text. The caller has the
    deadline, and closes the stream.
    """
    host = destination.host(proxy)
    try:
        if not proxy.is_socks:
            await _ask_http(stream, proxy, host, destination.port)
        elif proxy.scheme.startswith("socks4"):
            await _ask_socks4(stream, proxy, host, destination.port)
        else:
            await _ask_socks5(stream, proxy, host, destination.port)
    except (ConnectionResetError, BrokenPipeError, StreamTruncated, EOFError):
        raise refusal(proxy, "closes the connection without an answer") from None
    except UrgentAhead:
        raise refusal(proxy, "does not answer as a proxy") from None


def refusal(proxy: Proxy, what: str, code: int = errno.ECONNREFUSED) -> OSError:
    """The error for the client of a proxy that does this. A reset would mean that the client's own
    server has accepted it."""
    if code in (errno.ECONNRESET, errno.EPIPE):
        code = errno.ECONNREFUSED
    return OSError(code, f"proxy {proxy} {what}")


def _not_a_proxy(proxy: Proxy) -> NoReturn:
    kind = "SOCKS" if proxy.is_socks else "HTTP"
    raise refusal(proxy, f"does not answer as a proxy for {kind}") from None


async def _take(stream: Stream, count: int) -> bytes:
    """Exactly so many bytes. Raises EOFError where there are fewer."""
    data = await stream.peek(count - 1, count)
    if len(data) < count:
        raise EOFError
    stream.discard(count)
    return data


async def _send(stream: Stream, data: bytes) -> None:
    await stream.send_all(memoryview(data))


# HTTP


async def _ask_http(stream: Stream, proxy: Proxy, host: str, port: int) -> None:
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = [("Host", authority)]
    if proxy.user is not None:  # RFC 7617
        token = base64.b64encode(proxy.user + b":" + proxy.password).decode()
        headers.append(("Proxy-Authorization", f"Basic {token}"))
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    try:
        request = h11.Request(method="CONNECT", target=authority, headers=headers)
        await _send(stream, connection.send(request) or b"")
        connection.send(h11.EndOfMessage())
        status, reason = await _answer_of_http(stream, connection)
    except h11.ProtocolError:
        _not_a_proxy(proxy)
    if not 200 <= status < 300:
        said = f"answers {status} {printable(reason.decode('latin-1'))[:100]}".rstrip()
        raise refusal(proxy, said, _ERRORS_OF_HTTP.get(status, errno.ECONNREFUSED))


async def _answer_of_http(stream: Stream, connection: h11.Connection) -> tuple[int, bytes]:
    """The final answer's status and reason; its head is consumed. Raises h11.ProtocolError."""
    seen = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            behind, _ = connection.trailing_data
            stream.discard(seen - len(behind))
            return event.status_code, bytes(event.reason)
        if event is not h11.NEED_DATA:
            continue  # an interim response
        unread = await stream.peek(seen, _MAX_HEAD + 1)
        if len(unread) <= seen:
            raise EOFError
        connection.receive_data(unread[seen:])
        seen = len(unread)


# SOCKS


async def _ask_socks4(stream: Stream, proxy: Proxy, host: str, port: int) -> None:
    address, domain = b"\0\0\0\1", host.encode("ascii") + b"\0"
    try:
        address, domain = ipaddress.IPv4Address(host).packed, b""
    except ValueError:
        if not proxy.takes_names:
            raise refusal(proxy, "is SOCKS4, which has no IPv6", errno.ENETUNREACH) from None
    request = b"\x04\x01" + port.to_bytes(2, "big") + address
    await _send(stream, request + (proxy.user or b"") + b"\0" + domain)
    version, reply, *_ = await _take(stream, 8)
    if version != 0 or reply not in socks4.REPLIES:
        _not_a_proxy(proxy)
    if reply != socks4.GRANTED:
        raise refusal(proxy, f"answers {reply:#x}: {socks4.REPLIES[reply]}")


async def _ask_socks5(stream: Stream, proxy: Proxy, host: str, port: int) -> None:
    methods = [socks5.NO_AUTHENTICATION]
    if proxy.user is not None:
        methods.append(socks5.USERNAME_PASSWORD)
    await _send(stream, bytes([socks5.VERSION, len(methods), *methods]))
    version, method = await _take(stream, 2)
    if version != socks5.VERSION:
        _not_a_proxy(proxy)
    if method not in methods:
        has_user = "accepts no user and password" if proxy.user is not None else "wants a user"
        raise refusal(proxy, has_user)
    if method == socks5.USERNAME_PASSWORD:
        await _log_in(stream, proxy)
    await _send(stream, b"\x05\x01\0" + _socks5_address(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = await _take(stream, 4)
    if version != socks5.VERSION:
        _not_a_proxy(proxy)
    if reply:
        said = socks5.REPLIES.get(reply, "unassigned")
        code = _ERRORS_OF_SOCKS5.get(reply, errno.ECONNREFUSED)
        raise refusal(proxy, f"answers {reply}: {said}", code)
    # The address that it has bound.
    match kind:
        case 1:
            await _take(stream, 4 + 2)
        case 4:
            await _take(stream, 16 + 2)
        case 3:
            (length,) = await _take(stream, 1)
            await _take(stream, length + 2)
        case _:
            _not_a_proxy(proxy)


async def _log_in(stream: Stream, proxy: Proxy) -> None:
    """RFC 1929."""
    user = proxy.user or b""
    lengths = bytes([len(user)]), bytes([len(proxy.password)])
    await _send(stream, b"\x01" + lengths[0] + user + lengths[1] + proxy.password)
    _, status = await _take(stream, 2)
    if status:
        raise refusal(proxy, "refuses the user or the password")


def _socks5_address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        return bytes([3, len(name)]) + name
    return bytes([1 if address.version == 4 else 4]) + address.packed
