"""Each wait of a session's start, course and end is cancelled once: it ends, its files are sound up
to a whole record, and neither a descriptor nor a thread of it is left."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio

from mitml4.capture.files.reader import read_packets
from mitml4.layers.tls import TlsInterceptor
from mitml4.session.config import SessionConfig
from mitml4.session.session import Session
from tests.session.test_session import LoopbackSource
from tests.sinks.test_pcapng import StandIn
from tests.steps import Steps, nothing_left

TIMEOUT_S = 30
REQUEST = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def serve(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            if not (piece := await stream.receive_some()):
                return
            got += piece
        await stream.send_all(RESPONSE)
        await stream.receive_some()


async def visit(address: tuple[str, int]) -> None:
    """A request, which the session may not live to see."""
    with suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(REQUEST)
            got = b""
            while len(got) < len(RESPONSE) and (piece := await stream.receive_some()):
                got += piece


def config_of(place: Path) -> SessionConfig:
    return SessionConfig(
        output="none",
        events_file=place / "events",
        har=place / "har",
        packets=place / "packets",
        plain=place / "plain",
        keylog=place / "keys",
        drain_s=0.1,
    )


def check(place: Path, *, is_whole: bool) -> None:
    """The session's files."""
    lines = (place / "events").read_bytes()
    assert not lines or lines.endswith(b"\n")
    types = [json.loads(line)["type"] for line in lines.splitlines()]
    entries = json.loads((place / "har").read_bytes())["log"]["entries"]
    for name in ("packets", "plain"):
        with (place / name).open("rb") as stream:
            list(read_packets(stream, name))
    assert (place / "keys").read_bytes() == b""
    if is_whole:
        assert (types[0], types[-1]) == ("session.start", "session.stop")
        assert types.count("flow.open") == types.count("flow.close") == len(entries) == 1


def run(place: Path, at: int) -> bool:
    """A session with a request, which is cancelled at its step of this number. Whether it came to
    that."""
    scope = trio.CancelScope()
    acted = False

    def act() -> None:
        nonlocal acted
        acted = True
        scope.cancel()

    steps = Steps(at, act)

    async def main() -> None:
        with trio.fail_after(TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                servers = await nursery.start(trio.serve_tcp, serve, 0)
                port = servers[0].socket.getsockname()[1]
                with socket.create_server(("127.0.0.1", 0)) as listener:
                    source = LoopbackSource(port, listener)
                    tap: Any = StandIn()
                    session = Session(config_of(place), print, print, [tap])
                    nursery.start_soon(talk, session, source)
                    await run_session(session, source)
                    assert tap.closed
                nursery.cancel_scope.cancel()

    async def talk(session: Session, source: LoopbackSource) -> None:
        await visit(source.address)
        session.stop("SIGINT")

    async def run_session(session: Session, source: LoopbackSource) -> None:
        @asynccontextmanager
        async def opening() -> AsyncIterator[Sequence[LoopbackSource]]:
            await trio.lowlevel.checkpoint()
            try:
                yield [source]
            finally:
                await trio.lowlevel.cancel_shielded_checkpoint()

        async def prepare(*_kinds: object) -> None:
            await trio.lowlevel.checkpoint()

        forge: Any = SimpleNamespace(prepare=prepare)
        nothing: Any = None
        interceptor = TlsInterceptor(
            forge=forge, contexts=nothing, verifier=nothing, passthrough_cache=nothing
        )
        steps.root = trio.lowlevel.current_task()
        with scope:
            await session.run(opening(), interceptor, None)
        steps.root = None

    trio.run(main, instruments=[steps])
    return acted


def test_each_wait_of_a_session_can_be_cancelled(tmp_path: Path) -> None:
    for at in count(1):
        place = tmp_path / str(at)
        place.mkdir()
        with nothing_left():
            acted = run(place, at)
        check(place, is_whole=not acted)
        if not acted:
            break
    assert at > 20
