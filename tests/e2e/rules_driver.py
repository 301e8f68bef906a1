"""The intercepting process of test_rules.py: relays flows unseen, and says what it sees.

Takes a Scope as JSON. Prints JSON lines: `ready`, or `error`; `flow` for each connection accepted;
and an answer to each line on stdin (`sync`, `quic`, `stop_intercepting`). Ends on SIGINT, SIGTERM,
SIGHUP and at the end of stdin.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from ipaddress import ip_network
from typing import Any

import trio

from mitml4.errors import MitmError
from mitml4.net import dial
from mitml4.net.listener import IncomingConnection
from mitml4.net.rules.interception import Interception, intercepting, preparing
from mitml4.net.rules.scope import PortRange, Scope

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(kind: str, **values: Any) -> None:
    print(json.dumps({"type": kind, **values}), flush=True)


def scope_from(options: dict[str, Any]) -> Scope:
    for name in ("ports", "exclude_ports"):
        if name in options:
            options[name] = PortRange.parse_list(options[name])
    for name in ("to", "from_"):
        options[name] = tuple(map(ip_network, options.get(name, ())))
    options["interfaces"] = tuple(options["interfaces"])
    return Scope(**options)


async def relay(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    async for chunk in source:
        await sink.send_all(chunk)
    await sink.send_eof()


async def flow(connection: IncomingConnection, interception: Interception, scope: Scope) -> None:
    say(
        "flow",
        client=str(connection.client),
        destination=str(connection.destination),
        interface=connection.interface,
    )

    def name_source(sock: socket.socket) -> None:
        interception.channel.name_source(sock, connection.destination, connection.source)

    try:
        with trio.fail_after(5):
            server = await dial.connect(
                connection.destination,
                mark=interception.own_mark,
                bound=name_source if scope.spoof_source else None,
            )
    except OSError as error:
        say("server-error", reason=str(error))
        connection.refuse(error)
        return
    except trio.TooSlowError:
        say("server-error", reason="no answer")
        connection.refuse(TimeoutError())
        return
    try:
        outgoing = trio.SocketStream(trio.socket.from_stdlib_socket(server))
        accepted: Any = await connection.accept()
        client_side = trio.SocketStream(trio.socket.from_stdlib_socket(accepted.socket))
        async with client_side, outgoing, trio.open_nursery() as nursery:
            nursery.start_soon(relay, client_side, outgoing)
            nursery.start_soon(relay, outgoing, client_side)
    except* trio.BrokenResourceError:
        pass


async def serve(interception: Interception, scope: Scope) -> None:
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(flow, await interception.gate.accept(), interception, scope)


async def obey(interception: Interception, cancel: trio.CancelScope) -> None:
    buffer = b""
    async for chunk in trio.lowlevel.FdStream(0):
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            match line.decode():
                case "sync":
                    say("sync")
                case "quic":
                    say("quic", packets=await interception.quic_blocked())
                case "stop_intercepting":
                    await interception.stop_intercepting()
                    say("stop_intercepting")
    cancel.cancel()


async def obey_signals(
    cancel: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(*STOP) as signals:
        task_status.started()
        async for _ in signals:
            cancel.cancel()


async def watch(interception: Interception, cancel: trio.CancelScope) -> None:
    say("lost", reason=await interception.wait_lost())
    cancel.cancel()


async def main() -> None:
    scope = scope_from(json.loads(sys.argv[1]))
    started = trio.current_time()
    async with (
        preparing(scope) as preparation,
        intercepting(preparation) as interception,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(interception.gate.run)
        nursery.start_soon(serve, interception, scope)
        nursery.start_soon(obey, interception, nursery.cancel_scope)
        await nursery.start(obey_signals, nursery.cancel_scope)
        nursery.start_soon(watch, interception, nursery.cancel_scope)
        say(
            "ready",
            table=interception.table,
            notes=interception.notes,
            port=interception.address.port,
            seconds=trio.current_time() - started,
        )
    say("stopped")


try:
    trio.run(main)
except MitmError as error:
    say("error", error=type(error).__name__, message=error.message, hint=error.hint)
    sys.exit(error.exit_code)
