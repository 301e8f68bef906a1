"""A server that shows a key without a certificate, as its client has asked for."""

from __future__ import annotations

import pytest

from mitml4.events import FlowLayer
from mitml4.protocols.tls.hello import Extension
from mitml4.protocols.tls.protocol import TlsDetails
from tests.tls.bridge.scripted import Offer, Server12, Server13, only_1_2, with_extensions

from .conftest import End

RAW_KEY = b"\2"  # RFC 7250 §3
OFFER = {Extension.SERVER_CERTIFICATE_TYPE: b"\1\2"}


@pytest.mark.parametrize(
    ("offer", "kind", "message"),
    [
        (Offer(more=OFFER), Server13, "encrypted_extensions"),
        (only_1_2(more=OFFER), Server12, "server_hello"),
    ],
)
def test_it_is_passed_through(flow_lab, offer: Offer, kind: type, message: str) -> None:
    hello = offer.records()
    answer = with_extensions((Extension.SERVER_CERTIFICATE_TYPE, RAW_KEY))
    heard: list[bytes] = []
    said: list[bytes] = []

    async def client(end: End) -> None:
        await end.send(hello)
        heard.append(await end.receive_some())
        await end.send_eof()
        await end.expect_eof()

    async def server(end: End) -> None:
        got = await end.receive(len(hello))
        far = kind(got, {message: answer})
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
    assert tls.details.passthrough == "a certificate of another type than X.509"
