"""Where a proxy's clients may be connected to, and how."""

from __future__ import annotations

import errno

import pytest
import trio

from mitml4.address import Address
from mitml4.layers.proxy.refusal import Refused, Why
from mitml4.net.memory import memory_pair
from mitml4.net.stream import Stream
from mitml4.protocols.policy import Target
from mitml4.session.flows.reaching import addresses_of, first_connected, is_forbidden, why_not

REMOTE = Address("192.0.2.7", 40000)
LOCAL = Address("127.0.0.1", 40000)
AT_LOOPBACK = (Address("127.0.0.1", 8080), Address("::1", 8080))
AT_ALL = (Address("::", 8080),)


@pytest.mark.parametrize(
    ("ip", "why"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.255.0.9", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("64:ff9b::7f00:1", "a loopback address"),
        ("0.0.0.0", "a loopback address"),
        ("::", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("::ffff:169.254.169.254", "a link-local address"),
        ("fd00:ec2::254", "a link-local address"),
        ("224.0.0.1", "a multicast address"),
        ("192.0.2.9", ""),
        ("10.0.0.1", ""),
        ("2001:db8::1", ""),
    ],
)
def test_a_remote_client_reaches_no_address_of_the_host_alone(ip: str, why: str) -> None:
    assert is_forbidden(Address(ip, 80), REMOTE, AT_LOOPBACK) == why
    assert is_forbidden(Address(ip, 80), LOCAL, AT_LOOPBACK) == ""


@pytest.mark.parametrize(
    ("ip", "port", "own", "is_itself"),
    [
        ("127.0.0.1", 8080, AT_LOOPBACK, True),
        ("::1", 8080, AT_LOOPBACK, True),
        ("0.0.0.0", 8080, AT_LOOPBACK, True),
        ("127.0.0.2", 8080, AT_LOOPBACK, False),
        ("127.0.0.1", 8081, AT_LOOPBACK, False),
        ("127.0.0.2", 8080, AT_ALL, True),
        ("::1", 8080, AT_ALL, True),
        ("192.0.2.77", 8080, AT_ALL, False),
    ],
)
def test_nobody_reaches_the_proxy_through_itself(
    ip: str, port: int, own: tuple[Address, ...], is_itself: bool
) -> None:
    assert bool(is_forbidden(Address(ip, port), LOCAL, own)) == is_itself


async def test_literals_are_not_looked_up() -> None:
    assert await addresses_of(Target("192.0.2.1", 80)) == [Address("192.0.2.1", 80)]
    assert await addresses_of(Target("::ffff:192.0.2.1", 80)) == [Address("192.0.2.1", 80)]


@pytest.mark.parametrize("host", ["a..b", "x" * 300, "\udc80", "ex ample", "no\0name"])
async def test_what_is_no_name_has_no_address(host: str, monkeypatch) -> None:
    async def getaddrinfo(host: str, *_args: object, **_settings: object) -> list[object]:
        host.encode("idna")
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(Refused) as raised:
        await addresses_of(Target(host, 80))
    assert raised.value.why is Why.NO_NAME


async def test_a_lookup_does_not_take_for_ever(monkeypatch, autojump_clock: trio.abc.Clock) -> None:
    async def getaddrinfo(*_args: object, **_settings: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(Refused) as raised:
        await addresses_of(Target("slow.example", 80))
    assert raised.value.why is Why.NAME_TIMEOUT


SILENT, REFUSING, ANSWERING = (Address(f"192.0.2.{number}", 80) for number in (1, 2, 3))


async def test_an_address_that_is_silent_does_not_delay_the_next(
    autojump_clock: trio.abc.Clock,
) -> None:
    stream, _ = memory_pair()
    tried: list[tuple[Address, float]] = []
    began = trio.current_time()

    async def connect(address: Address) -> Stream:
        tried.append((address, round(trio.current_time() - began, 3)))
        if address == SILENT:
            await trio.sleep_forever()
        if address == REFUSING:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return stream

    assert await first_connected([SILENT, REFUSING, ANSWERING], connect) == (stream, ANSWERING)
    assert tried == [(SILENT, 0), (REFUSING, 0.25), (ANSWERING, 0.25)]


async def test_the_first_failure_is_told(autojump_clock: trio.abc.Clock) -> None:
    async def connect(address: Address) -> Stream:
        code = errno.ECONNREFUSED if address == REFUSING else errno.ENETUNREACH
        raise OSError(code, "no")

    with pytest.raises(ConnectionRefusedError):
        await first_connected([REFUSING, ANSWERING], connect)


async def test_no_answer_at_all_is_a_timeout(autojump_clock: trio.abc.Clock) -> None:
    async def connect(_address: Address) -> Stream:
        await trio.sleep_forever()

    with pytest.raises(TimeoutError) as raised:
        await first_connected([SILENT], connect)
    assert why_not(raised.value, Target("a", 1)).why is Why.TIMEOUT


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (errno.ECONNREFUSED, Why.REFUSED),
        (errno.ENETUNREACH, Why.NO_NETWORK),
        (errno.EHOSTUNREACH, Why.NO_HOST),
        (errno.ETIMEDOUT, Why.TIMEOUT),
        (errno.EMFILE, Why.INTERNAL),
    ],
)
def test_errors_of_the_kernel_are_told_apart(code: int, why: Why) -> None:
    assert why_not(OSError(code, "x"), Target("a", 1)).why is why
