"""--probe-clients between real clients and a server that counts what it hears."""

from __future__ import annotations

import ssl

import pytest
import trio

from mitml4.events import ClientProbe, FlowClose, FlowLayer
from mitml4.tls.probe import Case, Probes

NAME = "example.test"
ALWAYS = {"old_version", "revoked"}
"""What these clients do not offer."""


def context(proxy, *, checks: bool) -> ssl.SSLContext:
    settings = proxy.client_context()
    settings.minimum_version = ssl.TLSVersion.TLSv1_2  # Debian's Python offers more
    if not checks:
        settings.check_hostname = False
        settings.verify_mode = ssl.CERT_NONE
    return settings


async def visit(proxy, settings: ssl.SSLContext, data: bytes | None = b"secret") -> None:
    stream = trio.SSLStream(await proxy.connect(), settings, server_hostname=NAME)
    try:
        await stream.do_handshake()
        if data is not None:
            await stream.send_all(data)
            await stream.receive_some()
    except trio.BrokenResourceError:
        pass
    finally:
        await stream.aclose()


class Server:
    """Remembers what it hears, and ends."""

    def __init__(self) -> None:
        self.heard = bytearray()

    async def __call__(self, stream: trio.SocketStream) -> None:
        self.heard += await stream.receive_some()


def outcomes(proxy) -> dict[str, str]:
    return {each.case: each.outcome for each in proxy.of(ClientProbe)}


@pytest.mark.parametrize(
    ("checks", "data", "expected"),
    [(True, b"secret", "refused"), (False, b"secret", "sent_data"), (False, None, "refused")],
)
async def test_each_defect_is_met_once_and_the_server_hears_nothing(
    lab, our_ca, checks: bool, data: bytes | None, expected: str
) -> None:
    """A client that closes right after the handshake has checked only then."""
    server = Server()
    async with lab(server, probes=Probes(our_ca)) as proxy:
        settings = context(proxy, checks=checks)
        count = len(Case) - len(ALWAYS)
        for number in range(count):
            await visit(proxy, settings, data)
            close = await proxy.wait_closed(number + 1)
            assert close.reason == "closed"
        assert server.heard == b""
        assert {layer.action for layer in proxy.of(FlowLayer)} == {"answered"}
        await visit(proxy, settings, data)
        await proxy.wait_closed(count + 1)
    assert server.heard.startswith(b"\x16\x03")  # the ClientHello of the first that is not probed
    assert outcomes(proxy) == {
        case.value: "not_offered" if case.value in ALWAYS else expected for case in Case
    }
    probes = proxy.of(ClientProbe)
    assert [each.case for each in probes] == [case.value for case in Case]
    assert {each.name for each in probes} == {NAME}
    assert len(proxy.of(FlowClose)) == count + 1


async def test_a_client_that_waits_for_the_server_has_accepted(lab, our_ca) -> None:
    async with lab(Server(), probes=Probes(our_ca)) as proxy:
        stream = trio.SSLStream(
            await proxy.connect(), context(proxy, checks=False), server_hostname=NAME
        )
        await stream.do_handshake()
        await proxy.wait_closed()
    (probe,) = proxy.of(ClientProbe)
    assert (probe.case, probe.outcome) == ("self_signed", "accepted")


async def test_an_old_version_is_met_by_those_that_may_accept_it(lab, our_ca) -> None:
    async with lab(Server(), probes=Probes(our_ca)) as proxy:
        settings = context(proxy, checks=False)
        settings.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        settings.maximum_version = ssl.TLSVersion.TLSv1_2
        settings.set_ciphers("ALL:@SECLEVEL=0")
        for number in range(len(Case) - 1):
            await visit(proxy, settings)
            await proxy.wait_closed(number + 1)
    assert outcomes(proxy)["old_version"] == "sent_data"
    old = proxy.of(FlowLayer)[list(Case).index(Case.OLD_VERSION)]
    assert old.details.version == "TLSv1.1"
