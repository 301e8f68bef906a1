"""TLS through a proxy: what each side sees of the other, its refusals and defects included."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from OpenSSL._util import lib

from mitml4.events import FlowError, FlowLayer
from mitml4.tls.engine_memory import EngineMemory


def server_context(authority: trustme.CA, name: str = "example.test", **issue) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name, **issue).configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def echo_over(context: ssl.SSLContext):
    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        try:
            async for chunk in tls:
                await tls.send_all(chunk)
            await tls.aclose()
        except (trio.BrokenResourceError, ssl.SSLError):
            await trio.aclose_forcefully(stream)

    return serve


async def handshake(
    proxy, context: ssl.SSLContext, name: str | None = "example.test"
) -> trio.SSLStream:
    client = trio.SSLStream(await proxy.connect(), context, server_hostname=name)
    with trio.fail_after(5):
        await client.do_handshake()
    return client


async def refusal(proxy, context: ssl.SSLContext, name: str = "example.test") -> str:
    """What a client says when the handshake fails: OpenSSL's own, as trio sends no alert then."""

    def attempt() -> str:
        with socket.create_connection(proxy.address, timeout=5) as raw:
            try:
                context.wrap_socket(raw, server_hostname=name).close()
            except OSError as error:
                return str(error)
        return "no failure"

    return await trio.to_thread.run_sync(attempt)


async def wait_until(condition: Callable[[], object]) -> None:
    """Of what another thread does."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.01)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_servers_version_is_the_clients(lab, server_ca, version) -> None:
    context = server_context(server_ca)
    context.maximum_version = version
    memory = EngineMemory()
    async with lab(echo_over(context), engine_memory=memory) as proxy:
        client = await handshake(proxy, proxy.client_context())
        assert client.version() == version.name.replace("_", ".")
        await client.aclose()
        await proxy.wait_closed()
    sites = {*memory._speaks_1_3, *(each.site for each in memory._finished)}
    assert {site.sni for site in sites} == {"example.test"}
    assert bool(memory._speaks_1_3) == (version is ssl.TLSVersion.TLSv1_3)
    assert bool(memory._finished) != bool(memory._speaks_1_3)


async def test_the_servers_choice_of_alpn_wins_and_none_stays_none(lab, server_ca) -> None:
    async with lab(echo_over(server_context(server_ca))) as proxy:
        context = proxy.client_context()
        context.set_alpn_protocols(["http/1.1", "h2"])
        client = await handshake(proxy, context)
        assert client.selected_alpn_protocol() == "h2"  # the server prefers it
        await client.aclose()
        silent = await handshake(proxy, proxy.client_context())
        assert silent.selected_alpn_protocol() is None
        await silent.aclose()
        await proxy.wait_closed()


async def test_the_cipher_and_the_kind_of_key_are_the_servers(lab, server_ca) -> None:
    context = server_context(server_ca, key_type=trustme.KeyType.RSA)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
    async with lab(echo_over(context)) as proxy:
        client = await handshake(proxy, proxy.client_context())
        assert client.cipher()[0] == "ECDHE-RSA-AES256-GCM-SHA384"
        await client.aclose()
        await proxy.wait_closed()
        (layer,) = proxy.of(FlowLayer)
        assert layer.details.certificate.key == "RSA-2048"
        assert "key" in layer.details.mirrored


async def test_an_expired_certificate_is_seen_as_expired(lab, server_ca) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    context = server_context(server_ca, not_after=yesterday)
    async with lab(echo_over(context)) as proxy:
        assert "certificate has expired" in await refusal(proxy, proxy.client_context())
        await proxy.wait_closed()
        (layer,) = proxy.of(FlowLayer)
        assert layer.details.certificate.verify == "certificate has expired"


async def test_a_wrong_name_stays_wrong(lab, server_ca) -> None:
    async with lab(echo_over(server_context(server_ca, "other.test"))) as proxy:
        assert "Hostname mismatch" in await refusal(proxy, proxy.client_context())
        await proxy.wait_closed()
        assert proxy.of(FlowLayer)[0].details.certificate.verify == "hostname mismatch"


async def test_an_unknown_authority_is_not_made_a_known_one(lab) -> None:
    async with lab(echo_over(server_context(trustme.CA()))) as proxy:
        assert "certificate verify failed" in await refusal(proxy, proxy.client_context())
        await proxy.wait_closed()
        assert proxy.of(FlowLayer)[0].details.certificate.verify != "ok"


async def test_upstream_ignore_signs_with_the_real_authority(lab) -> None:
    async with lab(echo_over(server_context(trustme.CA())), upstream="ignore") as proxy:
        client = await handshake(proxy, proxy.client_context())
        await client.aclose()
        await proxy.wait_closed()
        assert proxy.of(FlowLayer)[0].details.certificate.verify != "ok"


async def test_upstream_reject_ends_the_flow(lab) -> None:
    async with lab(echo_over(server_context(trustme.CA())), upstream="reject") as proxy:
        assert "no failure" not in await refusal(proxy, proxy.client_context())
        assert (await proxy.wait_closed()).reason == "error"
        assert [error.kind for error in proxy.of(FlowError)] == ["certificate"]


async def test_the_servers_alert_reaches_the_client(lab) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"\x15\x03\x03\x00\x02\x02\x70")  # RFC 8446 §6: fatal, 112

    async with lab(refuse) as proxy:
        assert "unrecognized name" in await refusal(proxy, proxy.client_context())
        assert (await proxy.wait_closed()).reason == "error"
        assert [error.reason for error in proxy.of(FlowError)] == ["unrecognized_name"]


async def test_who_refuses_our_certificate_is_passed_through_from_then_on(lab, server_ca) -> None:
    async with lab(echo_over(server_context(server_ca))) as proxy:
        pinned = ssl.create_default_context()
        server_ca.configure_trust(pinned)  # and nobody else
        assert "certificate verify failed" in await refusal(proxy, pinned)
        assert (await proxy.wait_closed()).reason == "error"
        (error,) = proxy.of(FlowError)
        assert (error.side, error.kind, error.reason) == ("client", "certificate", "unknown_ca")
        client = await handshake(proxy, pinned)
        await client.aclose()
        await proxy.wait_closed(2)
        layer = proxy.of(FlowLayer)[-1]
        assert (layer.action, layer.details.passthrough) == ("passthrough", "pinned")
        assert layer.details.sni == "example.test"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_wants_a_client_certificate_gets_the_clients_own(
    lab, server_ca, version
) -> None:
    context = server_context(server_ca)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    server_ca.configure_trust(context)
    async with lab(echo_over(context)) as proxy:
        mine = ssl.create_default_context()
        server_ca.configure_trust(mine)
        server_ca.issue_cert("me@example.test").configure_cert(mine)
        client = await handshake(proxy, mine)
        with trio.fail_after(5):
            await client.send_all(b"\x00mine")
            assert await client.receive_some() == b"\x00mine"
        await client.aclose()
        await proxy.wait_closed()
        (layer,) = proxy.of(FlowLayer)
        assert (layer.action, layer.details.passthrough) == ("passthrough", "client certificate")
        assert layer.details.server_hello is None


@pytest.mark.parametrize(
    ("version", "asks"),
    [
        (SSL.TLS1_2_VERSION, False),
        (SSL.TLS1_2_VERSION, True),
        (SSL.TLS1_3_VERSION, True),  # which has no renegotiation, but a request of its own
    ],
)
async def test_a_server_may_renegotiate_and_ask_for_a_certificate_later(
    lab, server_ca, tmp_path, version, asks
) -> None:
    pem = tmp_path / "server.pem"
    server_ca.issue_cert("example.test").private_key_and_cert_chain_pem.write_to_path(pem)
    asked: list[SSL.Connection] = []

    def talk(raw: socket.socket) -> None:
        raw.setblocking(True)
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(version)
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.use_certificate_chain_file(str(pem))
        context.use_privatekey_file(str(pem))
        connection = SSL.Connection(context, raw)
        connection.set_accept_state()
        connection.sendall(connection.recv(100))
        if asks:
            connection.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        if version == SSL.TLS1_3_VERSION:
            assert lib.SSL_verify_client_post_handshake(connection._ssl) == 1
        else:
            connection.renegotiate()
        connection.do_handshake()  # says so; the answer comes with what is read next
        asked.append(connection)
        connection.sendall(connection.recv(100))
        connection.shutdown()

    async def asking(stream: trio.SocketStream) -> None:
        with socket.socket(fileno=os.dup(stream.socket.fileno())) as raw, suppress(SSL.Error):
            await trio.to_thread.run_sync(talk, raw)

    async with lab(asking) as proxy:
        context = proxy.client_context()
        context.post_handshake_auth = True
        server_ca.configure_trust(context)  # it is passed through in the end
        client = await handshake(proxy, context)
        with trio.fail_after(10):
            for words in (b"\x00before", b"\x00after"):
                await client.send_all(words)
                assert await client.receive_some() == words
                await wait_until(lambda: asked and not asked[0].renegotiate_pending())
        await client.aclose()
        await proxy.wait_closed()
        said = ["the server asks for a client certificate"] if asks else []
        assert [error.reason for error in proxy.of(FlowError)] == said
        await trio.aclose_forcefully(await handshake(proxy, context))
        await proxy.wait_closed(2)
        learned = proxy.of(FlowLayer)[-1].details.passthrough
        assert learned == ("client certificate" if asks else None)


async def test_close_notify_comes_through_and_so_does_its_absence(lab, server_ca) -> None:
    async def truncating(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, server_context(server_ca), server_side=True)
        await tls.send_all(b"\x00cut")
        await stream.send_eof()  # FIN without close_notify
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()

    async with lab(truncating) as proxy:
        context = proxy.client_context()
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # some Pythons look away by default
        client = await handshake(proxy, context)
        with trio.fail_after(5):
            assert await client.receive_some() == b"\x00cut"
            with pytest.raises(trio.BrokenResourceError) as caught:
                await client.receive_some()
        assert "EOF" in str(caught.value.__cause__)


async def test_tls_inside_tls(lab, server_ca) -> None:
    """A tunnel inside TLS with TLS inside: the inner one runs on memory, and is opened as well."""
    inner_context, outer_context = server_context(server_ca), server_context(server_ca)

    async def serve(stream: trio.SocketStream) -> None:
        outer = trio.SSLStream(stream, outer_context, server_side=True)
        await echo_over(inner_context)(outer)

    async with lab(serve) as proxy:
        outer = await handshake(proxy, proxy.client_context())
        inner = trio.SSLStream(outer, proxy.client_context(), server_hostname="example.test")
        with trio.fail_after(10):
            payload = bytes(300_000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(inner.send_all, payload)
                received = 0
                while received < len(payload):
                    received += len(await inner.receive_some())
            await inner.aclose()
        close = await proxy.wait_closed()
    assert close.stack == ("tls", "tls", "unknown")
    assert [layer.action for layer in proxy.of(FlowLayer)][:2] == ["intercepted"] * 2


def weak_context(directory: Path) -> ssl.SSLContext:
    """A server whose certificate is signed by itself, with an RSA key of 1024 bits."""
    key = rsa.generate_private_key(65537, 1024)
    name, now = x509.Name([]), datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("example.test")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(names, critical=True)
        .sign(key, SHA256())
    )
    pem = directory / "weak.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(pem)
    return context


@pytest.mark.parametrize(
    ("upstream", "action"),
    [("mirror", "passthrough"), ("ignore", "intercepted"), ("reject", "intercepted")],
)
async def test_what_a_leaf_would_hide_is_passed_opened_or_ended(
    lab, tmp_path, upstream, action
) -> None:
    async with lab(echo_over(weak_context(tmp_path)), upstream=upstream) as proxy:
        lenient = proxy.client_context()
        lenient.load_verify_locations(tmp_path / "weak.pem")
        lenient.set_ciphers("DEFAULT:@SECLEVEL=0")
        assert (await refusal(proxy, lenient) == "no failure") == (upstream != "reject")
        await proxy.wait_closed()
    (layer,) = proxy.of(FlowLayer)[:1]
    assert layer.action == action
    assert layer.details.passthrough == ("weak key" if upstream == "mirror" else None)
    assert layer.details.certificate.verify == "self-signed certificate; weak key"
    ended = [error.kind for error in proxy.of(FlowError)]
    assert ended == (["certificate"] if upstream == "reject" else [])


async def test_what_a_leaf_would_hide_inside_tls_is_untrusted_and_then_passed(
    lab, server_ca, tmp_path
) -> None:
    """The server cannot be asked again there."""
    outer_context, inner_context = server_context(server_ca), weak_context(tmp_path)

    async def serve(stream: trio.SocketStream) -> None:
        await echo_over(inner_context)(trio.SSLStream(stream, outer_context, server_side=True))

    async with lab(serve) as proxy:
        lenient = proxy.client_context()
        lenient.load_verify_locations(tmp_path / "weak.pem")
        lenient.set_ciphers("DEFAULT:@SECLEVEL=0")
        for number, trusted in ((1, False), (2, True)):
            outer = await handshake(proxy, proxy.client_context())
            inner = trio.SSLStream(outer, lenient, server_hostname="example.test")
            refusal = nullcontext() if trusted else pytest.raises(trio.BrokenResourceError)
            with trio.fail_after(5), refusal:
                await inner.do_handshake()
            await trio.aclose_forcefully(outer)
            await proxy.wait_closed(number)
    inner_layers = [layer for layer in proxy.of(FlowLayer) if layer.depth == 1]
    assert [layer.action for layer in inner_layers] == ["intercepted", "passthrough"]
    assert inner_layers[0].details.certificate.verify == "self-signed certificate; weak key"
    assert inner_layers[1].details.passthrough == "weak key"


CAMELLIA_GCM = 0xC086  # TLS_ECDHE_ECDSA_WITH_CAMELLIA_128_GCM_SHA256 (RFC 6367): not in OpenSSL
HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"


def hello_of(cipher_suites: list[int]) -> bytes:
    """A ClientHello of TLS 1.2 with these suites and no extension (RFC 5246 §7.4.1.2)."""
    suites = b"".join(suite.to_bytes(2, "big") for suite in cipher_suites)
    body = b"\3\3" + bytes(32) + b"\0" + len(suites).to_bytes(2, "big") + suites + b"\1\0"
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + len(message).to_bytes(2, "big") + message


def only_knows(cipher_suite: int):
    """A server that says no more than whether a hello offers the only suite that it knows."""

    async def serve(stream) -> None:
        hello = await stream.receive_some(1 << 14)
        offered = cipher_suite.to_bytes(2, "big") in hello
        await stream.send_all(b"\x16\3\3\0\4\2\0\0\0" if offered else HANDSHAKE_FAILURE)
        await stream.aclose()

    return serve


async def test_a_cipher_that_only_the_two_ends_know_costs_nothing(lab) -> None:
    async with lab(only_knows(CAMELLIA_GCM)) as proxy:
        client = await proxy.connect()
        await client.send_all(hello_of([CAMELLIA_GCM, 0xC02B]))
        with trio.fail_after(5):
            assert (await client.receive_some())[:1] == b"\x16"
        await client.aclose()
        await proxy.wait_closed()
        (layer,) = proxy.of(FlowLayer)
        assert layer.action == "passthrough"


async def test_inside_tls_it_costs_one_connection_and_no_more(lab, server_ca) -> None:
    """The server cannot be asked again there: the next connection knows better."""
    context = server_context(server_ca)

    async def serve(stream: trio.SocketStream) -> None:
        await only_knows(CAMELLIA_GCM)(trio.SSLStream(stream, context, server_side=True))

    async with lab(serve) as proxy:
        answers = []
        for number in (1, 2):
            outer = await handshake(proxy, proxy.client_context())
            with trio.fail_after(5):
                await outer.send_all(hello_of([CAMELLIA_GCM, 0xC02B]))
                answers.append(await outer.receive_some())
            await trio.aclose_forcefully(outer)
            await proxy.wait_closed(number)
    assert answers[0] == HANDSHAKE_FAILURE
    assert answers[1][:1] == b"\x16"
    inner = [layer for layer in proxy.of(FlowLayer) if layer.depth == 1]
    assert [layer.action for layer in inner] == ["intercepted", "passthrough"]
