"""`proxy`: a session for clients that use mitml4 as their proxy.

It needs no privilege and makes no rule. It ends like `intercept`.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
from collections.abc import Iterator
from typing import ClassVar, Final, Literal
from urllib.parse import quote

import trio

from mitml4.address import Address
from mitml4.errors import ExitCode, MachineError
from mitml4.layers.proxy.credentials import Credentials
from mitml4.net.links import names_of_links
from mitml4.net.owner.finder import OwnerFinder
from mitml4.net.place import HERE
from mitml4.net.tap import Tap
from mitml4.session.ca_page import ca_pages
from mitml4.session.config import ProxyConfig
from mitml4.session.flows.proxied import ProxyServices
from mitml4.session.interceptor import stored_authority, tls_interceptor
from mitml4.session.interruptions import ended_by_signals
from mitml4.session.process import check_limits, prepare_process
from mitml4.session.reporting.summary import summary
from mitml4.session.saying import Complain, Say
from mitml4.session.session import Session
from mitml4.session.sources.proxy import ProxySource, listeners_at
from mitml4.session.sources.source import confined
from mitml4.session.writing import notes_of
from mitml4.tls.trust_store import UNSET_VARIABLES, write_trust

__all__ = ["environment", "proxy"]

_FOR_URLS: Final = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
"""curl reads http_proxy in lower case only: a CGI has the other from any request."""
_PROBE_S: Final = 1.0
_LOOPBACK: Final = "lo"


async def proxy(config: ProxyConfig, say: Say, complain: Complain) -> ExitCode:
    """Run a session to its end. Raises MitmError for what ends it early."""
    with OwnerFinder.of_this_host() as owners:
        return await _run(config, owners, say, complain)


async def _run(config: ProxyConfig, owners: OwnerFinder, say: Say, complain: Complain) -> ExitCode:
    prepare_process()
    check_limits(config.workers, at_once=not config.alone_up_to)
    # In the background, output to the terminal must not stop this process.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    started = trio.current_time()
    taps = _taps() if config.packets else []
    listeners = listeners_at(config.listen)
    session = _ProxySession(config, say, complain, taps)
    authority = stored_authority(config.ca_dir, say)
    session.policy.limit(authority.permitted_domains)
    interceptor, named = tls_interceptor(config, authority, session.on_secret)
    services = ProxyServices(
        credentials=Credentials(config.auth) if config.auth else None,
        own=tuple(each.address for each in listeners),
    )
    pages = ca_pages(authority) if config.ca_page else None
    clients = ProxySource.opened(listeners, services, owners)
    async with ended_by_signals(session):
        await session.run(confined(clients, keep=()), interceptor, named, pages)
    outputs, hub = session.outputs, session.hub
    for note in notes_of(outputs, session.cut_off):
        say(f"note: {note}")
    took = trio.current_time() - started
    text = summary(
        *(hub.totals, took, outputs.names, hub.dropped_events),
        cut_off=session.cut_off,
        has_rules=False,
    )
    say(text)
    return ExitCode.FAILED if session.cut_off else ExitCode.DONE


def _taps() -> list[Tap]:
    """On all interfaces. Raises MachineError."""
    try:
        return [Tap.open(name) for name in (_LOOPBACK, *names_of_links(HERE))]
    except MachineError as error:
        hint = "-w needs CAP_NET_RAW; --pcap-plain FILE needs nothing"
        raise MachineError(error.message, hint=hint) from error


class _ProxySession(Session):
    mode: ClassVar[Literal["proxy"]] = "proxy"


def environment(config: ProxyConfig, say: Say) -> Iterator[str]:
    """Lines for a shell, by which its programs use the proxy and trust its authority. Nothing is
    started; a note says so where no proxy is there. Raises CertificateError."""
    place = config.listen[0]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(place.ip, place.ip)
    at = Address(host, place.port)
    try:
        socket.create_connection((at.ip, at.port), _PROBE_S).close()
    except OSError:
        say(f"note: no proxy is at {at} yet: start it in another terminal, with the same --listen")
    user = ""
    if config.auth:
        user = ":".join(quote(part, safe="") for part in config.auth[0].split(b":", 1)) + "@"
    authority = stored_authority(config.ca_dir, say)
    variables = dict.fromkeys(_FOR_URLS, f"http://{user}{at}")
    variables |= write_trust(authority.certificate, config.ca_dir.absolute(), os.environ)
    for name, value in variables.items():
        yield f"export {name}={shlex.quote(value)}"
    yield f"unset {' '.join(UNSET_VARIABLES)}"
    yield f"mitml4_proxy_off() {{ unset {' '.join(variables)}; unset -f mitml4_proxy_off; }}"
