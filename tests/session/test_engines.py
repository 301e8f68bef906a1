"""Which engine does the TLS of a connection, and what the server gets of it."""

from __future__ import annotations

import ssl

import pytest
import trio

from mitml4.events import FlowError, FlowLayer
from mitml4.protocols.tls.fingerprints import ja3, ja4
from mitml4.protocols.tls.hello import ClientHello, parse_client_hello

from .test_tls import echo_over, handshake, server_context


class Recording:
    """An echo over TLS that keeps each connection's ClientHello."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.hellos: list[ClientHello] = []
        self.resumed: list[bool] = []

    async def __call__(self, stream: trio.SocketStream) -> None:
        seen = b""
        while not (hello := parse_client_hello(seen)):
            await stream.socket.recv(1, trio.socket.MSG_PEEK)
            seen = await stream.socket.recv(65536, trio.socket.MSG_PEEK)
        self.hellos.append(hello)
        tls = trio.SSLStream(stream, self.context, server_side=True)
        try:
            async for chunk in tls:
                await tls.send_all(chunk)
            self.resumed.append(tls.session_reused)
            await tls.aclose()
        except (trio.BrokenResourceError, ssl.SSLError):
            await trio.aclose_forcefully(stream)


async def say(client: trio.SSLStream, words: bytes = b"\x00words") -> None:
    with trio.fail_after(5):
        await client.send_all(words)
        assert await client.receive_some() == words


def of_1_2(server_ca, ciphers: str | None = None, **issue) -> ssl.SSLContext:
    context = server_context(server_ca, **issue)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    if ciphers:
        context.set_ciphers(ciphers)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_server_gets_the_clients_own_hello(lab, server_ca, version) -> None:
    context = server_context(server_ca)
    context.maximum_version = version
    server = Recording(context)
    async with lab(server) as proxy:
        await say(await handshake(proxy, proxy.client_context()))
        (layer,) = proxy.of(FlowLayer)[:1]
        assert layer.details.server_hello == "exact"
        (hello,) = server.hellos
        assert (layer.details.ja3, layer.details.ja4) == (ja3(hello), ja4(hello))


async def test_openssl_says_its_own_hello_where_it_is_asked_for(lab, server_ca) -> None:
    server = Recording(server_context(server_ca))
    async with lab(server, engine="openssl") as proxy:
        await say(await handshake(proxy, proxy.client_context()))
        (layer,) = proxy.of(FlowLayer)[:1]
        told = layer.details.server_hello
        assert told == "exact" or told[0] == "by OpenSSL: as asked"


async def test_what_the_bridge_cannot_do_is_dialled_again_once(lab, server_ca) -> None:
    """The site is remembered: its next connection is OpenSSL's from the first byte."""
    context = of_1_2(server_ca, "AES128-SHA:@SECLEVEL=0", key_type=_rsa())
    server = Recording(context)
    async with lab(server) as proxy:
        own = proxy.client_context()
        own.set_ciphers("ALL:@SECLEVEL=0")
        for count in (2, 3):
            client = await handshake(proxy, own)
            await say(client)
            await client.aclose()
            await proxy.wait_closed(count - 1)
            assert len(server.hellos) == count
        assert not proxy.of(FlowError)
        assert [layer.action for layer in proxy.of(FlowLayer) if layer.protocol == "tls"] == [
            "intercepted",
            "intercepted",
        ]


async def test_the_bridge_alone_passes_through_what_it_cannot_do(lab, server_ca) -> None:
    context = of_1_2(server_ca, "AES128-SHA:@SECLEVEL=0", key_type=_rsa())
    async with lab(Recording(context), engine="bridge") as proxy:
        own = proxy.client_context()
        server_ca.configure_trust(own)
        own.set_ciphers("ALL:@SECLEVEL=0")
        client = await handshake(proxy, own)
        await say(client)
        await client.aclose()
        await proxy.wait_closed()
        (layer,) = proxy.of(FlowLayer)
        assert (layer.action, layer.details.passthrough) == (
            "passthrough",
            "cipher suite AES128-SHA",
        )
        assert layer.details.server_hello is None


STARTTLS = (b"* OK mail\r\n", b"a STARTTLS\r\n", b"a OK go\r\n")
"""Of IMAP: unlike SMTP's, it is not repeated on another connection."""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_bridge_alone_opens_starttls_once_the_server_has_answered_such_a_hello(
    lab, server_ca, version
) -> None:
    context = server_context(server_ca)
    context.maximum_version = version

    async def speak(stream: trio.SocketStream, *, as_server: bool) -> None:
        for count, line in enumerate(STARTTLS):
            if as_server is (count % 2 == 0):
                await stream.send_all(line)
            else:
                assert await stream.receive_some() == line

    async def serve(stream: trio.SocketStream) -> None:
        await speak(stream, as_server=True)
        await echo_over(context)(stream)

    async with lab(serve, engine="bridge") as proxy:
        own = proxy.client_context()
        server_ca.configure_trust(own)
        own.set_ciphers("ALL")
        for count in (1, 2):
            stream = await proxy.connect()
            with trio.fail_after(5):
                await speak(stream, as_server=False)
            client = trio.SSLStream(stream, own, server_hostname="example.test")
            await say(client)
            await client.aclose()
            await proxy.wait_closed(count)
        layers = [layer for layer in proxy.of(FlowLayer) if layer.protocol == "tls"]
        assert [layer.action for layer in layers] == ["passthrough", "intercepted"]
        assert layers[1].details.server_hello == "exact"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_that_the_client_resumes_is_resumed_at_the_server(
    lab, server_ca, version
) -> None:
    context = server_context(server_ca)
    context.maximum_version = version
    server = Recording(context)
    async with lab(server) as proxy:
        own = proxy.client_context()
        session = None
        for count in (1, 2, 3):
            client = trio.SSLStream(await proxy.connect(), own, server_hostname="example.test")
            if session:
                client._ssl_object.session = session
            await say(client)
            session = client.session
            await client.aclose()
            await proxy.wait_closed(count)
        layers = [layer for layer in proxy.of(FlowLayer) if layer.protocol == "tls"]
        assert [layer.details.resumed for layer in layers] == [False, True, True]
        assert server.resumed == [False, True, True]
        assert {layer.details.certificate for layer in layers} == {layers[0].details.certificate}


async def test_a_group_without_a_key_share_comes_by_a_retry(lab, server_ca) -> None:
    context = server_context(server_ca)
    context.set_ecdh_curve("secp521r1")
    server = Recording(context)
    async with lab(server) as proxy:
        await say(await handshake(proxy, proxy.client_context()))
        (layer,) = proxy.of(FlowLayer)[:1]
        assert layer.details.group == "secp521r1"
        assert layer.details.server_hello == "exact"


async def test_a_server_that_wants_another_hello_first_gets_no_third_one(lab, server_ca) -> None:
    """The client has been answered when the server asks for a certificate: it cannot be passed
    through, and goes on without one."""
    context = server_context(server_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_ecdh_curve("secp384r1")  # of which no client sends a key at once
    server_ca.configure_trust(context)
    connections = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await echo_over(context)(stream)

    async with lab(serve) as proxy:
        client = await handshake(proxy, proxy.client_context())
        with trio.fail_after(5):
            await client.send_all(b"\x00mine")
            assert await client.receive_some() == b"\x00mine"
        await client.aclose()
        await proxy.wait_closed()
        (layer, _) = proxy.of(FlowLayer)
        assert (layer.action, layer.details.group) == ("intercepted", "secp384r1")
        reason = "the server asks for a client certificate"
        assert [error.reason for error in proxy.of(FlowError)] == [reason]
    assert connections == 1


def _rsa():
    import trustme

    return trustme.KeyType.RSA
