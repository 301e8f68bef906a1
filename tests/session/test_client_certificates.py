"""Servers that ask for a client certificate, and how often they may be dialled."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
import trio
import trustme

from mitml4.events import FlowLayer


class TakesOneConnection:
    """A server that asks for a certificate, and serves its first connection only: as FTP's for
    data. What becomes of the others is the test's."""

    def __init__(self, ca: trustme.CA, others: str, *, speaks_first: bool) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("example.test").configure_cert(self.context)
        ca.configure_trust(self.context)
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.others = others
        self.speaks_first = speaks_first
        self.connections = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        if self.connections == 1:
            await self.echo(trio.SSLStream(stream, self.context, server_side=True))
        elif self.others == "silent":
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
        elif self.others == "closes":
            await stream.receive_some()
            await stream.aclose()
        else:
            await trio.aclose_forcefully(stream)  # unread: a reset

    async def echo(self, tls: trio.SSLStream) -> None:
        with suppress(trio.BrokenResourceError):
            if self.speaks_first:
                await tls.send_all(b"\0first")
            async for chunk in tls:
                await tls.send_all(chunk)


@pytest.mark.parametrize("others", ["silent", "closes", "resets"])
@pytest.mark.parametrize("speaks_first", [True, False])
async def test_a_server_that_takes_one_connection_goes_on_with_it(
    lab, server_ca, others, speaks_first
) -> None:
    server = TakesOneConnection(server_ca, others, speaks_first=speaks_first)
    async with lab(server.serve) as proxy:
        raw = await proxy.connect()
        client = trio.SSLStream(raw, proxy.client_context(), server_hostname="example.test")
        with trio.fail_after(10):
            if speaks_first:
                assert await client.receive_some() == b"\0first"
            await client.send_all(b"\0hello")
            assert await client.receive_some() == b"\0hello"
        await client.aclose()
        await proxy.wait_closed()
        assert [layer.action for layer in proxy.of(FlowLayer)] == ["intercepted", "relayed"]
        assert server.connections == 2
