"""`run`: a session for one command in a network namespace, without changes on the host.

The namespace is created and the command forked before anything else, while this process has one
thread and no secrets. The command waits until the session is ready. The session ends with the
command, or with the last of its descendants.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.address import Address
from mitml4.errors import ExitCode, UsageError
from mitml4.events import DnsRefused
from mitml4.net import processes
from mitml4.net.capabilities import Capability
from mitml4.net.namespace.dns import Refusals
from mitml4.net.namespace.launch import Launch, find_program
from mitml4.net.namespace.namespace import Namespace
from mitml4.net.owner.finder import OwnerFinder
from mitml4.screen.terminal import occupy_standard_descriptors
from mitml4.session.ca_page import ca_pages
from mitml4.session.command.browsers import BrowserTrust, withdraw
from mitml4.session.command.command import Command
from mitml4.session.command.roots import Authorities, CommandRoots
from mitml4.session.command.trust import CommandTrust
from mitml4.session.config import RunConfig
from mitml4.session.interceptor import tls_interceptor
from mitml4.session.process import check_limits, prepare_process
from mitml4.session.reporting.summary import probe_lines
from mitml4.session.saying import Complain, Say
from mitml4.session.session import Session
from mitml4.session.sources.command import CommandSource, takes_loopback
from mitml4.session.sources.source import confined
from mitml4.session.writing import notes_of

__all__ = ["run"]

_CLOSE_TIMEOUT_S: Final = 0.5
"""How long connections may take to close after the command has ended."""
_KEPT: Final = (Capability.KILL, Capability.NET_ADMIN, Capability.NET_RAW)
"""Needed where mitml4 runs as root: to forward signals to a command that runs as another user, and
to set marks."""


def run(config: RunConfig, say: Say, complain: Complain) -> int:
    """Run a command to its end. Returns its exit status as a shell reports it, or 1 if that is 0
    and an output could not be written, which `complain` has reported.

    Raises CommandError if the command cannot be run, MitmError for what ends the session early.
    """
    program = find_program(config.argv[0], os.environ)
    occupy_standard_descriptors()
    processes.leave_init_behind()
    is_confined = bool(config.policy.allow)
    if is_confined:
        _check_standard_descriptors()
    at_end = partial(withdraw, dict(os.environ), config.argv)
    with (
        Namespace.open(loopback=takes_loopback(config), at_end=at_end) as namespace,
        namespace.owners() as owners,
    ):
        if namespace.has_user_namespace and _changes_user(program):
            say(f"note: {program} is set-user-ID: in a namespace of yours it gets no privilege")
        if is_confined and not namespace.has_user_namespace:
            say("note: --allow keeps no root from changing files of this host, and what reads them")
        launch = Launch.prepare(program, config.argv, namespace, is_confined=is_confined)
        processes.close_memory()
        processes.become_subreaper()
        # Output to the terminal must work while the command is in the foreground.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        return trio.run(_run, config, namespace, owners, launch, say, complain)


def _check_standard_descriptors() -> None:
    """Raises UsageError if one is a socket that could be connected to somewhere else."""
    for number, name in enumerate(("input", "output", "error")):
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            continue
        with socket.socket(fileno=os.dup(number)) as sock:
            kind = sock.family, sock.type
        if kind != (socket.AF_UNIX, socket.SOCK_STREAM):
            raise UsageError(
                f"standard {name} is a socket, which leads past --allow", hint="… | cat, or < FILE"
            )


def _changes_user(program: str) -> bool:
    mode = os.stat(program).st_mode
    return bool(mode & stat.S_ISUID) and os.stat(program).st_uid != os.geteuid()


async def _run(
    config: RunConfig,
    namespace: Namespace,
    owners: OwnerFinder,
    launch: Launch,
    say: Say,
    complain: Complain,
) -> int:
    try:
        prepare_process()
        check_limits(config.workers, at_once=not config.alone_up_to)
        taps = [namespace.tap()] if config.packets else []
        session = _RunSession(config, say, complain, taps)
        sources = namespace.sources
        session.policy.protect((*sources.all_v4, *sources.all_v6))
        environ = dict(os.environ)
        roots = CommandRoots(environ if config.trust else {})
        authorities = Authorities.of(len(roots.sets))
        interceptor, named = tls_interceptor(
            config,
            authorities.widest,
            session.on_secret,
            sets=roots.sets,
            narrower=authorities.by_sets,
        )
        session.policy.limit(authorities.widest.permitted_domains)
        if config.trust:
            environ = _make_trusted(namespace, roots, authorities, environ, config.argv)
        if config.policy.allow:
            namespace.hide_services(os.environ)
    except BaseException:
        launch.cancel()
        raise
    pages = ca_pages(authorities.widest) if config.ca_page else None
    command = Command(launch, environ)
    refusals = Refusals(session.policy.allows_name, session.refuse_name)
    inside = CommandSource.opened(
        config,
        namespace,
        owners,
        command,
        interceptor,
        session.policy.decide,
        session.note,
        refusals if config.policy.allow else None,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(command.watch)
        await session.run(confined(inside, keep=_KEPT), interceptor, named, pages)
        for note in notes_of(session.outputs, session.cut_off):
            say(f"note: {note}")
        for line in probe_lines(session.hub.totals):
            say(line)
        await command.ended.wait()
        nursery.cancel_scope.cancel()
    assert command.status is not None
    return command.status or (ExitCode.FAILED if session.cut_off else ExitCode.DONE)


def _make_trusted(
    namespace: Namespace,
    roots: CommandRoots,
    authorities: Authorities,
    environ: Mapping[str, str],
    argv: Sequence[str],
) -> dict[str, str]:
    """Mount files of roots with the authority in the namespace; returns the environment that names
    them. Raises MachineError."""
    trust = CommandTrust.of(roots, authorities, environ)
    browsers = BrowserTrust(trust.builtin, environ, argv, trust.directory)
    namespace.mount_files(trust.directory, {**trust.files, **browsers.files})
    browsers.show(namespace)
    namespace.for_the_end(each.public_bytes(Encoding.DER) for each in trust.builtin)
    return dict(trust.environ)


class _RunSession(Session):
    """A session that ends with its command, and does not depend on outputs."""

    mode = "run"
    needs_outputs = False

    def refuse_name(self, client: Address, name: str | None) -> None:
        """A DNS query was refused."""
        self.hub.publish(DnsRefused(client=client, name=name))

    async def drain(self) -> None:
        """No client is left to receive data. What clients have sent is still delivered."""
        with trio.move_on_after(self.config.drain_s):
            with trio.move_on_after(_CLOSE_TIMEOUT_S):
                await super().drain()
            await self.flows.wait_delivered()
