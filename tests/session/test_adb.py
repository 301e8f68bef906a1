"""adb's TLS, in which both ends show keys they have exchanged: passed through from the first."""

from __future__ import annotations

import ssl

import trio

from mitml4.events import FlowLayer

CONNECT = b"CNXN\1\0\0\1\0\0\x10\0\7\0\0\0\x32\2\0\0\xbc\xb1\xa7\xb1host::\0"
START_TLS = b"STLS\0\0\0\1" + bytes(12) + b"\xac\xab\xb3\xac"


async def receive(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := await stream.receive_some(count - len(data))):
        data += more
    return data


async def test_adb_reaches_its_device_through_tls_that_is_not_opened(lab, server_ca) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    server_ca.configure_trust(context)
    server_ca.issue_cert("adb.example.test").configure_cert(context)

    async def device(stream: trio.SocketStream) -> None:
        assert await receive(stream, len(CONNECT)) == CONNECT
        await stream.send_all(START_TLS)
        assert await receive(stream, len(START_TLS)) == START_TLS
        tls = trio.SSLStream(stream, context, server_side=True)
        await tls.send_all(b"device::")
        await tls.aclose()

    mine = ssl.create_default_context()
    server_ca.configure_trust(mine)
    server_ca.issue_cert("host@example.test").configure_cert(mine)
    async with lab(device) as proxy:
        client = await proxy.connect()
        with trio.fail_after(5):
            await client.send_all(CONNECT)
            assert await receive(client, len(START_TLS)) == START_TLS
            await client.send_all(START_TLS)
            tls = trio.SSLStream(client, mine, server_hostname="adb.example.test")
            assert await receive(tls, 8) == b"device::"
            await tls.aclose()
        await proxy.wait_closed()
        outer, inner = proxy.of(FlowLayer)
        assert (outer.protocol, outer.details.upgraded) == ("adb", True)
        assert (inner.protocol, inner.action) == ("tls", "passthrough")
        assert inner.details.passthrough == "client certificate"
