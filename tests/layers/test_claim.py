"""`intercept --allow`: a client has to say who its server is, and the server has to be that."""

from __future__ import annotations

import pytest

from mitml4.session.destinations.policy import HostPattern, Policy
from tests.layers.conftest import SERVER, End, FlowLab, Outcomes, Script

HERE = {"a.test": SERVER.ip, "b.test": SERVER.ip, "x.glob.test": SERVER.ip}
ELSEWHERE = {"a.test": "192.0.2.77"}
HELD = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n"
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


def run(
    lab: FlowLab,
    client: Script,
    server: Script | None,
    addresses: dict[str, str],
    *allow: str,
) -> Outcomes:
    patterns = tuple(map(HostPattern.parse, allow or ("a.test", "b.test", "*.glob.test")))
    out = lab.run(client, server, policy=Policy(allow=patterns).decide, addresses=addresses)
    out.check()
    return out


async def serve(end: End) -> None:
    """One request of HTTP/1."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += (more := await end.receive(1))
        if not more:
            return
    await end.send(OK)


async def serve_tls(end: End) -> None:
    await end.start_tls(as_server=True)
    await serve(end)


def asks(*requests: bytes) -> Script:
    async def script(end: End) -> None:
        for request in requests:
            await end.send(request)
        await end.expect(OK)

    return script


async def ask_by_tls(end: End) -> None:
    await end.start_tls()
    await asks(HELD % b"a.test")(end)


async def nobody(_end: End) -> None:
    raise AssertionError("the server was connected to")


@pytest.mark.parametrize("host", [b"a.test", b"A.Test.", b"a.test:443", b"x.glob.test"])
def test_a_request_goes_where_its_host_is(flow_lab: FlowLab, host: bytes) -> None:
    out = run(flow_lab, asks(HELD % host), serve, HERE)
    assert (out.close.reason, out.met["client"]) == ("closed", "all")


NOT_KNOWN = {
    "another host": (HELD % b"other.test", HERE),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", HERE),
    "a URL and a Host": (b"GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", HERE),
    "no host": (b"GET / HTTP/1.0\r\n\r\n", HERE),
    "an address": (HELD % SERVER.ip.encode(), HERE),
    "another address": (HELD % b"a.test", ELSEWHERE),
    "a name that is not found": (HELD % b"a.test", {}),
    "a proxy": (b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", HERE),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HERE),
    "SOCKS": (b"\5\1\0", HERE),
    "another protocol": (b"SSH-2.0-x\r\n", HERE),
    "a part of a request": (b"GET / HTTP/1.1\r\nHost: a.te", HERE),
    "nothing": (b"", HERE),
}


@pytest.mark.parametrize("name", NOT_KNOWN)
def test_nobody_is_connected_to_for_what_is_not_known(flow_lab: FlowLab, name: str) -> None:
    said, addresses = NOT_KNOWN[name]

    async def client(end: End) -> None:
        if said:
            await end.send(said)
        await end.receive(1)

    out = run(flow_lab, client, nobody, addresses)
    assert out.close.reason == "denied"
    assert (out.close.bytes_up, len(out.near_ends)) == (0, 1)
    assert [error.kind for error in out.errors] == ["refused"]


def test_a_certificate_shows_who_the_server_is(flow_lab: FlowLab) -> None:
    """A handshake of our own comes first: of the client's, nobody sees anything before."""
    out = run(flow_lab, ask_by_tls, serve_tls, {})
    assert (out.close.reason, out.met["client"]) == ("closed", "all")
    assert len(out.near_ends) == 3


def test_where_a_lookup_shows_it_no_handshake_is_needed(flow_lab: FlowLab) -> None:
    out = run(flow_lab, ask_by_tls, serve_tls, HERE)
    assert (out.close.reason, len(out.near_ends)) == ("closed", 2)


def test_a_server_without_a_certificate_for_the_name_is_none(flow_lab: FlowLab) -> None:
    async def no_tls(end: End) -> None:
        await end.send(b"220 hello\r\n")

    out = run(flow_lab, ask_by_tls, no_tls, {})
    assert out.close.reason == "denied"
    assert "is not known to be a.test" in out.errors[0].reason
    out = run(flow_lab, ask_by_tls, serve_tls, {}, "b.test")
    assert (out.close.reason, len(out.near_ends)) == ("denied", 1)


def test_an_address_that_is_named_needs_no_name(flow_lab: FlowLab) -> None:
    async def client(end: End) -> None:
        await end.send(b"SSH-2.0-x\r\n")
        await end.expect(b"SSH-2.0-y\r\n")

    async def server(end: End) -> None:
        await end.expect(b"SSH-2.0-x\r\n")
        await end.send(b"SSH-2.0-y\r\n")

    assert run(flow_lab, client, server, {}, SERVER.ip).close.reason == "closed"


def test_the_first_request_says_who_the_connection_is_for(flow_lab: FlowLab) -> None:
    async def client(end: End) -> None:
        for host in (b"a.test", b"b.test", b"other.test"):
            await end.send(HELD % host)
            if await end.receive(len(OK)) != OK:
                return

    async def server(end: End) -> None:
        for host in (b"a.test", b"b.test", b"other.test"):
            await end.expect(HELD % host)
            await end.send(OK)

    out = run(flow_lab, client, server, HERE)
    assert (out.close.reason, out.met["server"]) == ("denied", "reset")
