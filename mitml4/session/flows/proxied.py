"""A flow whose client uses mitml4 as its proxy: who it asks for, and the connections there."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Literal

import trio

from mitml4.address import CA_PAGE, Address
from mitml4.dataclass import dataclass
from mitml4.events import CloseReason
from mitml4.layers.ca_page import AnswerByPages, Pages
from mitml4.layers.proxy.credentials import Credentials
from mitml4.layers.proxy.refusal import Refused, Why
from mitml4.layers.report import Report
from mitml4.net.memory import memory_pair
from mitml4.net.stream import Stream
from mitml4.protocols.policy import Blocked, Decide, FlowPolicy, Target
from mitml4.session.flows.reaching import (
    CONNECT_S,
    addresses_of,
    first_connected,
    is_elsewhere,
    is_forbidden,
    why_not,
)
from mitml4.tasks import fail_after

__all__ = ["Asking", "ProxyServices"]

_LOSSES: Final[Mapping[Why, Literal["timeout", "internal"]]] = {
    Why.TIMEOUT: "timeout",
    Why.NAME_TIMEOUT: "timeout",
    Why.INTERNAL: "internal",
}
_PAGE: Final = Target(CA_PAGE.ip, CA_PAGE.port)
_USAGE: Final = "this is a proxy: a client has to use it as such, with a URL or CONNECT"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyServices:
    """What the flows of a proxy need besides."""

    credentials: Credentials | None
    """None: everybody may use it."""
    own: Sequence[Address]
    """Where it listens."""


@dataclass(slots=True, kw_only=True)
class Asking:
    """Connects to the servers that one client asks for."""

    client: Address
    services: ProxyServices
    decide: Decide
    connect: Callable[[Address, str | None], Awaitable[Stream]]
    """Connects to an address, whose name is this one. Raises OSError. The flow closes it."""
    connect_by_name: Callable[[Target], Awaitable[Stream | None]]
    """Connects by other proxies that look the name up; None: there are none. Raises OSError."""
    pages: Pages | None
    report: Report

    policy: FlowPolicy | None = None
    """Of the connection that was made last."""
    again: Callable[[], Awaitable[Stream]] | None = None
    """Makes it again; None: it was to the pages. Raises OSError."""
    reason: CloseReason = "closed"
    """How the flow ends, after the last request."""
    _nursery: trio.Nursery | None = None
    """Of `serve_pages`."""

    async def serve_pages(self) -> None:
        """Answer the requests for the pages, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    async def open(self, target: Target | None) -> Stream:
        """Connect; None: to the pages. Raises Refused."""
        began = trio.current_time()
        try:
            stream = await self._open(target)
        except Blocked as blocked:
            self.reason = "denied" if blocked.is_denied else "blocked"
            if blocked.is_denied:
                self.report.error("client", "relay", "refused", str(blocked))
            raise Refused(Why.POLICY, str(blocked)) from None
        except Refused as refused:
            if refused.why is Why.NO_PROXY_REQUEST:
                self.reason = "closed"
            elif refused.why is Why.FORBIDDEN:
                self.reason = "blocked"
                self.report.error("client", "relay", "refused", str(refused))
            else:
                kind: Literal["refused", "timeout", "internal"]
                kind = _LOSSES.get(refused.why, "refused")
                self.reason = "error" if kind == "internal" else kind
                self.report.error("server", "connect", kind, str(refused))
            raise
        self.reason = "closed"
        self.report.connect_s = trio.current_time() - began
        return stream

    async def _open(self, target: Target | None) -> Stream:
        """Raises Refused, Blocked."""
        if target is None or (target == _PAGE and self.pages):
            return self._page(target)
        asked = FlowPolicy(self.decide, (target,))
        asked.check_destination()
        if stream := await self._by_name(target, asked):
            return stream
        host = target.host
        addresses = await addresses_of(target)
        name = None if len(addresses) == 1 and addresses[0].ip == host else host
        permitted = self._permitted(addresses, target, name)
        try:
            stream, address = await first_connected(
                list(permitted), lambda address: self.connect(address, name)
            )
        except OSError as error:
            raise why_not(error, target) from None
        self.policy = permitted[address]
        self.again = partial(self.connect, address, name)
        return stream

    async def _by_name(self, target: Target, policy: FlowPolicy) -> Stream | None:
        """Connect by proxies that look up names, unless the address matters here: where any is
        blocked, or for clients that may not reach all of this host's."""
        if policy.is_strict or is_elsewhere(self.client):
            return None

        async def connect() -> Stream:
            stream = await self.connect_by_name(target)
            if stream is None:
                raise OSError(errno.EHOSTUNREACH, "no route")
            return stream

        try:
            with fail_after(CONNECT_S):
                stream = await self.connect_by_name(target)
        except trio.TooSlowError:
            raise Refused(Why.TIMEOUT, f"{target}: no answer") from None
        except OSError as error:
            raise why_not(error, target) from None
        if stream:
            self.policy, self.again = policy, connect
        return stream

    def _permitted(
        self, addresses: Sequence[Address], target: Target, name: str | None
    ) -> dict[Address, FlowPolicy]:
        """The addresses to which the client may go, at least one. Raises Refused, Blocked."""
        permitted: dict[Address, FlowPolicy] = {}
        refusal: Exception = Refused(Why.NO_NAME, f"{target.host}: no address")
        for address in addresses:
            if why := is_forbidden(address, self.client, self.services.own):
                refusal = Refused(Why.FORBIDDEN, f"{target}: {why}, which is not for this client")
                continue
            names = [Target(name, target.port)] if name else []
            policy = FlowPolicy.of_flow(self.decide, Target(address.ip, address.port), names)
            try:
                policy.check_destination()
            except Blocked as blocked:
                refusal = Blocked(blocked.reason, blocked.end)
                continue
            permitted[address] = policy
        if not permitted:
            raise refusal
        return permitted

    def _page(self, target: Target | None) -> Stream:
        if self.pages is None:
            raise Refused(Why.NO_PROXY_REQUEST, _USAGE)
        if target:
            FlowPolicy(self.decide, (target,)).check_block()
        near, far = memory_pair()
        assert self._nursery
        self._nursery.start_soon(AnswerByPages(self.pages).serve, far)
        self.policy, self.again = FlowPolicy(), None
        return near
