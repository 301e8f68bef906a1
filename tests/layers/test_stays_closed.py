"""A server that answers what only the two ends can do: it shows a key without a certificate, as its
client has asked for, or has an extension that nobody else knows."""

from __future__ import annotations

import pytest

from mitml4.events import FlowLayer
from mitml4.protocols.tls.hello import Extension, parse_client_hello
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.tls.engine_memory import Engine
from tests.tls.bridge.scripted import Offer, Server12, Server13, only_1_2, with_extensions

from .conftest import End

UNKNOWN = 0x1234
RAW_KEY = b"\2"  # RFC 7250 §3
OFFER = {Extension.SERVER_CERTIFICATE_TYPE: b"\1\2"}


GREETING, GO = b"220 a.test ESMTP\r\n", b"220 go\r\n"
START = b"STARTTLS\r\n"


@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize("engine", ["auto", "openssl"])
@pytest.mark.parametrize(
    ("offer", "kind", "message"),
    [
        (Offer(more=OFFER), Server13, "encrypted_extensions"),
        (only_1_2(more=OFFER), Server12, "server_hello"),
    ],
)
def test_it_is_passed_through(
    flow_lab, offer: Offer, kind: type, message: str, engine: Engine, is_inside: bool
) -> None:
    hello = offer.records()
    answer = with_extensions((Extension.SERVER_CERTIFICATE_TYPE, RAW_KEY))
    heard: list[bytes] = []
    said: list[bytes] = []

    async def client(end: End) -> None:
        if is_inside:
            await end.expect(GREETING)
            await end.send(START)
            await end.expect(GO)
        await end.send(hello)
        heard.append(await end.receive_some())
        await end.send_eof()
        await end.expect_eof()

    async def server(end: End) -> None:
        if is_inside:
            await end.send(GREETING)
            await end.expect(START)
            await end.send(GO)
        got = await end.receive(len(hello))
        far = kind(got, {message: answer})
        far.send_flight()
        flight = far.taken()
        if got == hello:
            said.append(flight)
        await end.send(flight)
        await end.expect_eof()
        await end.send_eof()

    out = flow_lab.run(client, server, engine=engine)
    out.check()
    assert heard == said
    *_, tls = (each for each in out.events if isinstance(each, FlowLayer))
    assert tls.action == "passthrough"
    assert isinstance(tls.details, TlsDetails)
    assert tls.details.passthrough == "a certificate of another type than X.509"


@pytest.mark.parametrize("types", [b"\1\0", b"\0"])
def test_an_offer_of_what_there_is_without_it_is_no_reason(flow_lab, types: bytes) -> None:
    hello = Offer(more={Extension.SERVER_CERTIFICATE_TYPE: types}).records()

    async def client(end: End) -> None:
        await end.send(hello)
        await end.send_eof()
        await end.expect_eof()

    async def server(end: End) -> None:
        await end.receive_some()
        await end.send_eof()
        await end.expect_eof()

    out = flow_lab.run(client, server, engine="openssl")
    out.check()
    (tls,) = (each for each in out.events if isinstance(each, FlowLayer))
    assert tls.action == "intercepted"


@pytest.mark.parametrize(
    ("offer", "kind", "message"),
    [
        (Offer(more={UNKNOWN: b""}), Server13, "encrypted_extensions"),
        (only_1_2(more={UNKNOWN: b""}), Server12, "server_hello"),
    ],
)
def test_an_answer_that_nobody_knows_is_passed_through(
    flow_lab, offer: Offer, kind: type, message: str
) -> None:
    hello = offer.records()
    heard: list[bytes] = []
    said: list[bytes] = []

    async def client(end: End) -> None:
        await end.send(hello)
        heard.append(await end.receive_some())
        await end.send_eof()
        await end.expect_eof()

    async def server(end: End) -> None:
        got = await end.receive(len(hello))
        far = kind(got, {message: with_extensions((UNKNOWN, b"?"))})
        far.send_flight()
        flight = far.taken()
        if got == hello:
            said.append(flight)
        await end.send(flight)
        await end.expect_eof()
        await end.send_eof()

    out = flow_lab.run(client, server)
    out.check()
    assert heard == said
    (tls,) = (each for each in out.events if isinstance(each, FlowLayer))
    assert tls.action == "passthrough"
    assert isinstance(tls.details, TlsDetails)
    assert tls.details.passthrough == f"extension {UNKNOWN}"


def test_where_it_cannot_be_passed_through_any_more_openssl_goes_on(flow_lab) -> None:
    """Behind STARTTLS: the client's wish is left out, and the next connection passes through."""
    offer = Offer(more={UNKNOWN: b""})
    hello = offer.records()
    offered: list[bool] = []

    async def client(end: End) -> None:
        await end.expect(GREETING)
        await end.send(START)
        await end.expect(GO)
        await end.send(hello)
        await end.expect_eof()
        await end.send_eof()

    async def server(end: End) -> None:
        await end.send(GREETING)
        await end.expect(START)
        await end.send(GO)
        got = await end.receive_some()
        parsed = parse_client_hello(got)
        assert parsed
        offered.append(parsed.has(UNKNOWN))
        if offered[-1]:
            far = Server13(got, {"encrypted_extensions": with_extensions((UNKNOWN, b"?"))})
            far.send_flight()
            await end.send(far.taken())
        await end.send_eof()

    out = flow_lab.run(client, server)
    out.check()
    assert offered == [True, False]
