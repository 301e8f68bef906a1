"""A session whose connections are redirected by rules, on this host or in another network
namespace: `intercept`, once the rules have been tested.

It ends by Ctrl-C, SIGTERM, SIGHUP, `--duration`, or when the reader of standard output has gone.
The rules are removed before `session.stop` is published.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

import trio

from mitml4.errors import ExitCode
from mitml4.net.capabilities import Capability
from mitml4.net.links import names_of_links
from mitml4.net.owner.finder import OwnerFinder
from mitml4.net.rules.interception import Preparation
from mitml4.net.tap import Tap
from mitml4.session.ca_page import ca_pages
from mitml4.session.config import InterceptConfig
from mitml4.session.interceptor import stored_authority, tls_interceptor
from mitml4.session.interruptions import ended_by_signals
from mitml4.session.process import check_limits, prepare_process
from mitml4.session.reporting.summary import summary
from mitml4.session.saying import Complain, Say
from mitml4.session.session import Session
from mitml4.session.sources.rules import Rules
from mitml4.session.sources.source import FlowSource, confined
from mitml4.session.writing import notes_of
from mitml4.tls.ca import ca_command
from mitml4.tls.pinning import Site

if TYPE_CHECKING:
    from mitml4.session.attach.attachment import Attachment

__all__ = ["run_session"]

_MAX_HINTS: Final = 20
_KEPT: Final = (Capability.NET_ADMIN, Capability.NET_RAW)
"""Needed to hold and release SYNs, and to set marks on connections to servers."""


async def run_session(
    config: InterceptConfig,
    preparation: Preparation,
    say: Say,
    complain: Complain,
    attachment: Attachment | None = None,
    owners: OwnerFinder | None = None,
) -> ExitCode:
    """Run a session to its end. Raises MitmError for what ends it early; no rule stays then."""
    prepare_process()
    check_limits(config.workers, at_once=not config.alone_up_to)
    # In the background, output to the terminal must not stop this process.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    started = trio.current_time()
    place = preparation.place
    interfaces = config.scope.interfaces or names_of_links(place)
    taps = [Tap.open(name, place) for name in interfaces] if config.packets else []
    session = Session(config, say, complain, taps)
    authority = stored_authority(config.ca_dir, say)
    session.policy.limit(authority.permitted_domains)
    trust = attachment.trust if attachment else None
    roots = trust.roots() if trust else []
    interceptor, named = tls_interceptor(
        config,
        authority,
        session.on_secret,
        sets=[roots] if roots else None,
        on_pinned=_hints(config, session.note, trusts=trust is not None),
    )
    for note in trust.lay(authority.certificate) if trust else ():
        session.note(note)
    interceptor.passthrough_cache.trusted_since_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    pages = ca_pages(authority) if config.ca_page else None
    source = _source(config, preparation, session.note, attachment, owners)
    async with ended_by_signals(session):
        await session.run(confined(source, keep=_KEPT), interceptor, named, pages)
    outputs, hub = session.outputs, session.hub
    for note in notes_of(outputs, session.cut_off):
        say(f"note: {note}")
    took = trio.current_time() - started
    say(summary(hub.totals, took, outputs.names, hub.dropped_events, cut_off=session.cut_off))
    return ExitCode.FAILED if session.cut_off else ExitCode.DONE


def _source(
    config: InterceptConfig,
    preparation: Preparation,
    note: Say,
    attachment: Attachment | None,
    owners: OwnerFinder | None,
) -> AbstractAsyncContextManager[FlowSource]:
    if attachment is None:
        return Rules.applied(preparation, note, config.policy, owners)
    from mitml4.session.sources.attached import AttachedSource  # most sessions have none

    return AttachedSource.opened(
        attachment, preparation, note, config.policy, resets_existing=config.reset_existing
    )


def _hints(config: InterceptConfig, note: Say, *, trusts: bool) -> Callable[[Site], None] | None:
    """What is said of programs that can be made to trust the CA."""
    if trusts:
        return _Hints(note, "if it runs since before this session, restart it").pinned
    if config.scope.owners:
        install = ca_command("install", config.ca_dir)
        return _Hints(note, f"sudo {install}, and restart the program").pinned
    return None


class _Hints:
    """Says of each site once that a program refuses the CA's certificates for it."""

    def __init__(self, note: Say, remedy: str) -> None:
        self._note = note
        self._remedy = remedy
        self._said: set[str] = set()

    def pinned(self, site: Site) -> None:
        name = site.sni or site.target
        if name in self._said or len(self._said) == _MAX_HINTS:
            return
        self._said.add(name)
        self._note(f"a program refuses the CA's certificate for {name}: {self._remedy}")
