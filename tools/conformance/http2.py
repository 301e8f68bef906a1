"""Run the cases of `http2_cases` against servers on loopback.

    python tools/conformance/http2.py RESULTS.json [SERVER: CASE]…

The file has what each server answered: by server and case, a line of text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from http2_cases import (
    ACK,
    CASES,
    CONTENT,
    DATA,
    END,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WITHOUT_HANDSHAKE,
    Step,
    frame,
    settings,
)

AT_ONCE: Final = 32
ANSWER_S: Final = 8.0
"""How long an answer may take."""
QUIET_S: Final = 3.0
"""An answer is complete when nothing has come for so long."""
LIMIT_S: Final = 15.0
PAGE: Final = "content of a page\n"
APP: Final = f"""
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    while (await receive()).get("more_body"):
        pass
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": {PAGE.encode()!r}}})
"""
NGINX: Final = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{ }}
http {{
  access_log off;
  server {{ listen 127.0.0.1:{port} http2; location / {{ proxy_pass http://127.0.0.1:{other}; }} }}
  server {{ listen 127.0.0.1:{other}; root {folder}; error_page 405 =200 /index.html; }}
}}
"""


class Client:
    """One connection, and what has come on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.settings: dict[int, int] = {}
        self.heads: dict[int, int] = {}
        """By stream: how many HEADERS."""
        self.content: dict[int, int] = {}
        """By stream: bytes."""
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goaway: int | None = None
        self.pongs: list[bytes] = []
        self.settings_acks = 0
        self.is_closed = False
        self.changed = asyncio.Event()

    async def read(self) -> None:
        """Read to the end of the connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await self._reader.readexactly(9)
                high, low, kind, flags, stream = struct.unpack(">HBBBL", head)
                payload = await self._reader.readexactly(high << 8 | low)
                self._on_frame(kind, flags, stream, payload)
                self.changed.set()
        self.is_closed = True
        self.changed.set()

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and flags & ACK:
            self.settings_acks += 1
        elif kind == SETTINGS:
            self.settings |= dict(struct.iter_unpack(">HL", payload))
            with contextlib.suppress(OSError):
                self._writer.write(frame(SETTINGS, ACK))
        elif kind == PING and flags & ACK:
            self.pongs.append(payload)
        elif kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8])
        elif kind == RST_STREAM:
            self.resets[stream] = int.from_bytes(payload)
        elif kind == HEADERS:
            self.heads[stream] = self.heads.get(stream, 0) + 1
        elif kind == DATA:
            self.content[stream] = self.content.get(stream, 0) + len(payload)
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.ended.add(stream)

    async def wait(self, is_there: Callable[[], bool]) -> None:
        """Wait until it is there, or the connection has ended, or for LIMIT_S."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                while not (is_there() or self.is_closed):
                    self.changed.clear()
                    await self.changed.wait()

    async def wait_until_quiet(self) -> None:
        quiet_s = ANSWER_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                while not self.is_closed:
                    self.changed.clear()
                    async with asyncio.timeout(quiet_s):
                        await self.changed.wait()
                    quiet_s = QUIET_S

    def _stream(self, stream: int) -> str:
        heads, content = self.heads.get(stream, 0), self.content.get(stream, 0)
        end = " and the end" if stream in self.ended else ""
        reset = f" RST_STREAM {self.resets[stream]}" if stream in self.resets else ""
        return f"({heads} HEADERS, {content} bytes{end}{reset})"

    def __str__(self) -> str:
        """What came, in one line. It begins with `refused` if an error of HTTP/2 did."""
        streams = Counter(map(self._stream, sorted(self.heads | self.content | self.resets)))
        said = [f"{count} × {stream}" for stream, count in streams.items()]
        said += [f"PING {payload.decode()}" for payload in self.pongs]
        said += [f"{self.settings_acks} SETTINGS ACK"]
        said += [] if self.goaway is None else [f"GOAWAY {self.goaway}"]
        said += ["closed"] if self.is_closed else []
        is_refused = self.goaway or any(self.resets.values())
        return f"{'refused: ' if is_refused else ''}{', '.join(said)}"


async def outcome(port: int, steps: Sequence[Step], *, handshake: bool = True) -> str:
    """What a server answers to a case."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Client(reader, writer)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(client.read())
        with contextlib.suppress(OSError):
            if handshake:
                writer.write(PREFACE + settings([]))
                await client.wait(lambda: bool(client.settings_acks and client.settings))
            for step in steps:
                if step == END:
                    await client.wait(lambda: 1 in client.ended)
                elif step == CONTENT:
                    await client.wait(lambda: bool(client.content) or 1 in client.ended)
                else:
                    assert not isinstance(step, int)
                    data = step if isinstance(step, bytes) else step(client.settings)
                    writer.write(data)
                    await writer.drain()
        await client.wait_until_quiet()
        reading.cancel()
    with contextlib.suppress(OSError):
        writer.transport.abort()
    return str(client)


async def outcomes(port: int, server: str, names: Sequence[str]) -> dict[str, str]:
    """By server and case; `names`: only these."""
    found: dict[str, str] = {}
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, steps: Sequence[Step], *, handshake: bool) -> None:
        async with limit:
            found[name] = await outcome(port, steps, handshake=handshake)

    async with asyncio.TaskGroup() as tasks:
        for cases, handshake in ((CASES, True), (WITHOUT_HANDSHAKE, False)):
            for case, steps in cases.items():
                name = f"{server}: {case}"
                if not names or name in names:
                    tasks.create_task(one(name, steps, handshake=handshake))
    return found


def commands(folder: Path, port: int) -> Mapping[str, list[str]]:
    """The servers that are installed, each with a page below `folder`."""
    (folder / "index.html").write_text(PAGE)
    (folder / "app.py").write_text(APP)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, other=free_port()))
    hypercorn = Path(sys.executable).with_name("hypercorn")
    every = {
        "nghttpd": ["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", str(folder), str(port)],
        "nginx": ["nginx", "-c", str(folder / "nginx.conf")],
        # It would close an idle connection after 5 s, while the client still waits or not.
        "hypercorn": [
            *(str(hypercorn), "-b", f"127.0.0.1:{port}"),
            *("--keep-alive", str(int(10 * LIMIT_S)), "app:app"),
        ],
    }
    return {name: argv for name, argv in every.items() if shutil.which(argv[0])}


@contextlib.contextmanager
def serving(argv: Sequence[str], folder: Path, port: int) -> Iterator[None]:
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{argv[0]} does not serve: {(folder / 'log').read_text()}")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    results, *names = sys.argv[1:]
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        for server, argv in commands(folder, port).items():
            if not names or any(name.startswith(f"{server}: ") for name in names):
                with serving(argv, folder, port):
                    found |= asyncio.run(outcomes(port, server, names))
    Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
