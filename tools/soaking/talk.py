"""WebSocket and DNS over TCP, as a server and as a client with many connections.

    python -m soaking.talk serve ADDRESS
    python -m soaking.talk once ADDRESS SEED
    python -m soaking.talk on ADDRESS SEED

`once` ends with 0 if each protocol has said what it should. `on` goes on until it is killed, and
ends at once with 1 if something comes that was not sent. Its connections end in every way: with a
FIN, with a RST, in mid-message, or only when it is killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct
import sys
from contextlib import suppress
from typing import Final

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import WebSocketException

WEBSOCKET_PORT: Final = 8765
DNS_PORT: Final = 53
ECHO_PORT: Final = 7777
_QUIET_S: Final = 20.0
_GONE: Final = (OSError, EOFError, TimeoutError, WebSocketException)


class WrongAnswerError(Exception):
    """Something came that was not sent."""


# --- DNS (RFC 1035, RFC 7766)


def _question(number: int, name: str) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return (
        struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)
    )


def _answer(question: bytes) -> bytes:
    """The address that the name's digest begins with."""
    (number,) = struct.unpack_from("!H", question)
    head = struct.pack("!6H", number, 0x8180, 1, 1, 0, 0)
    address = hashlib.sha256(question[12:]).digest()[:4]
    return head + question[12:] + struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + address


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(length)


def _framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


async def _serve_dns(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(*_GONE):
        while True:
            writer.write(_framed(_answer(await _read_message(reader))))
            await writer.drain()
    writer.close()


# --- server


async def _echo(connection: ServerConnection) -> None:
    with suppress(*_GONE):
        async for message in connection:
            await connection.send(message)


async def run_servers(address: str) -> None:
    await asyncio.start_server(_serve_dns, address, DNS_PORT)
    async with serve(_echo, address, WEBSOCKET_PORT, max_size=None, ping_interval=5):
        await asyncio.get_running_loop().create_future()


# --- client


class Talker:
    def __init__(self, address: str, seed: int) -> None:
        self._address = address
        self._random = random.Random(seed)

    async def websocket(self, count: int) -> None:
        rng = self._random
        uri = f"ws://{self._address}:{WEBSOCKET_PORT}/"
        async with connect(
            uri, max_size=None, open_timeout=_QUIET_S, close_timeout=2
        ) as connection:
            for _ in range(count):
                said = rng.randbytes(rng.choice((1, 200, 70_000)))
                await connection.send(said)
                async with asyncio.timeout(_QUIET_S):
                    _expect(await connection.recv(), said)
            if rng.random() < 0.3:
                connection.transport.abort()

    async def dns(self, count: int) -> None:
        rng = self._random
        reader, writer = await asyncio.open_connection(self._address, DNS_PORT)
        try:
            async with asyncio.timeout(_QUIET_S):
                for number in range(count):
                    question = _question(number, f"host-{rng.randrange(10**6)}.example")
                    writer.write(_framed(question))
                    _expect(await _read_message(reader), _answer(question))
        finally:
            await self._end(writer)

    async def trickle(self, count: int) -> None:
        """Unknown bytes, one after the other; then nothing for a while."""
        rng = self._random
        reader, writer = await asyncio.open_connection(self._address, ECHO_PORT)
        try:
            async with asyncio.timeout(_QUIET_S):
                for number in range(count):
                    said = bytes([0xC0 + number % 0x40])
                    writer.write(said)
                    _expect(await reader.readexactly(1), said)
                    await asyncio.sleep(rng.random() / 20)
            await asyncio.sleep(rng.random())
        finally:
            await self._end(writer)

    async def crowd(self, count: int) -> None:
        """Connections that say nothing, or half of something, and are reset together."""
        writers = []
        try:
            for number in range(count):
                _, writer = await asyncio.open_connection(
                    self._address, (80, 443, ECHO_PORT)[number % 3]
                )
                writers.append(writer)
                if number % 2:
                    writer.write(b"GET / HT" if number % 3 == 0 else b"\x16\x03\x01\x02\x00\x01")
            await asyncio.sleep(self._random.random())
        finally:
            for each in writers:
                each.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                each.close()

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        if self._random.random() < 0.3:
            writer.transport.abort()
        else:
            writer.close()

    async def once(self) -> None:
        async with asyncio.timeout(_QUIET_S):
            await self.websocket(2)
            await self.dns(5)
            await self.trickle(3)

    async def go_on(self) -> None:
        kinds = (self.websocket, self.dns, self.trickle)

        async def repeat(kind: int) -> None:
            while True:
                with suppress(*_GONE):
                    await kinds[kind](self._random.randrange(1, 20))
                await asyncio.sleep(0.2 + self._random.random())

        async def gather() -> None:
            while True:
                await asyncio.sleep(5 + 10 * self._random.random())
                with suppress(*_GONE):
                    await self.crowd(self._random.choice((20, 60, 150)))

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(repeat(number % len(kinds)))
            group.create_task(gather())


def _expect(heard: object, said: bytes) -> None:
    if heard != said:
        raise WrongAnswerError(f"sent {said[:40]!r}, got {str(heard)[:80]}")


def main() -> int:
    command, address, *rest = sys.argv[1:]
    if command == "serve":
        asyncio.run(run_servers(address))
    talker = Talker(address, int(rest[0]))
    try:
        asyncio.run(talker.once() if command == "once" else talker.go_on())
    except _GONE as error:
        print(f"{command}: {error!r}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
