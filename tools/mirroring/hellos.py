"""Where hellos come from: captures, files with one hello, and clients of this machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mirroring.comparison import parsed
from mitml4.capture.fast_path import fast_path
from mitml4.capture.files.reader import read_packets
from mitml4.capture.flow import ALL, CloseReason, Flow
from mitml4.capture.network.dissector import Dissector
from mitml4.capture.reassembly import Reassembler
from mitml4.errors import CaptureError, ProtocolError
from mitml4.protocols.conversation import MAX_PEEK, Direction
from mitml4.protocols.tls.fingerprints import ja4
from mitml4.protocols.tls.hello import parse_client_hello

TIMEOUT_S: Final = 20.0
TLS_1_3: Final = 0x0304
CAPTURES: Final = (".pcap", ".pcapng", ".cap", ".trace", ".gz", ".zst")
NOTES: Final = (".md", ".jsonl")
MAX_STREAM: Final = 1 << 20
"""How much of a client's stream is searched."""


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        yield from (each for each in files if each.suffix not in NOTES)


class _ClientStream:
    """Keeps the beginning of what a flow's client says."""

    def __init__(self, found: list[bytes]) -> None:
        self.kept_bytes = 0
        self._found = found
        self._stream = bytearray()

    def data(self, direction: Direction, data: bytes, time_s: float) -> None:
        if direction is Direction.UP:
            self._stream += data[: MAX_STREAM - len(self._stream)]

    def passed(self, direction: Direction, count: int, time_s: float) -> None:
        pass

    def lost(self, direction: Direction, count: int, time_s: float) -> None:
        if direction is Direction.UP:
            self._stream += bytes(1)  # no hello goes on across a hole

    def end(self, direction: Direction, time_s: float) -> None:
        pass

    def over(self) -> None:
        pass

    def close(self, flow: Flow, reason: CloseReason) -> None:
        self._found.extend(hellos_in(bytes(self._stream)))

    def unseen(self) -> tuple[int, int]:
        return ALL if len(self._stream) >= MAX_STREAM else 0, ALL

    def give_up(self, time_s: float) -> None:
        pass


def hellos_in(stream: bytes) -> Iterator[bytes]:
    """The records of every ClientHello, also after a CONNECT or STARTTLS."""
    at = stream.find(b"\x16\x03")
    while at >= 0:
        hello = None
        with suppress(ProtocolError):
            hello = parse_client_hello(stream[at : at + MAX_PEEK])
        if hello:
            yield stream[at : at + hello.wire_length]
            at += hello.wire_length
        else:
            at += 1
        at = stream.find(b"\x16\x03", at)


def hellos_of(path: Path) -> list[bytes]:
    """Of a capture, or of a file with one hello."""
    found: list[bytes] = []
    if not path.name.endswith(CAPTURES):
        return list(hellos_in(path.read_bytes()))
    reassembler = Reassembler(lambda _: _ClientStream(found))
    with path.open("rb") as stream, suppress(CaptureError):
        packets = read_packets(stream, path.name)
        for _, time_s, unit in fast_path(packets, reassembler.halves, {}, Dissector()):
            if unit and len(unit) == 6:
                reassembler.take(time_s, unit)
    for _ in reassembler.close():
        pass
    return found


def distinct(paths: Iterable[Path]) -> list[bytes]:
    """The hellos that offer TLS 1.3: resumptions and second hellos too, each once."""
    found: dict[bytes, None] = {}
    for path in paths:
        for hello in hellos_of(path):
            if TLS_1_3 in parsed(hello).supported_versions:
                found.setdefault(hello)
    return list(found)


INSECURE: Final = "['ssl' => ['verify_peer' => false, 'verify_peer_name' => false]]"
URL: Final = "https://localhost:PORT/"
CLIENTS: Final = {
    "curl": ["curl", "-sk", URL],
    "wget": ["wget", "-q", "--tries=1", "--no-check-certificate", "-O", "-", URL],
    "git": ["git", "ls-remote", URL],
    "openssl": ["openssl", "s_client", "-connect", "localhost:PORT"],
    "openssl-p521": ["openssl", "s_client", "-groups", "P-521", "-connect", "localhost:PORT"],
    "gnutls": ["gnutls-cli", "--insecure", "-p", "PORT", "localhost"],
    "python": [sys.executable, "-c", f"import urllib.request as u; u.urlopen('{URL}')"],
    "node": ["node", "-e", f"fetch('{URL}').catch(() => 0)"],
    "perl": ["perl", "-MIO::Socket::SSL", "-e", "IO::Socket::SSL->new('localhost:PORT')"],
    "php": ["php", "-r", f"fopen('{URL}', 'r', false, stream_context_create({INSECURE}));"],
    "ruby": ["ruby", "-ropen-uri", "-e", f"URI.open('{URL}')"],
}
"""Commands that connect to a port of this machine."""


def record(directory: Path) -> None:
    """Run the clients that are installed, and write the hello of each to a file."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, argv in CLIENTS.items():
        if shutil.which(argv[0]) is None:
            print(f"{name}: not installed")
            continue
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(TIMEOUT_S)
            port = str(listener.getsockname()[1])
            command = [word.replace("PORT", port) for word in argv]
            nowhere: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, **nowhere) as process:
                try:
                    hello = first_hello(listener)
                    (directory / f"{name}.hello").write_bytes(hello)
                    print(f"{name}: {len(hello)} bytes, JA4 {ja4(parsed(hello))}")
                except OSError as error:
                    print(f"{name}: {error}")
                finally:
                    process.kill()


def first_hello(listener: socket.socket) -> bytes:
    """Of the next connection; raises OSError."""
    accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(TIMEOUT_S)
        return peek_hello(accepted)


def peek_hello(accepted: socket.socket) -> bytes:
    """The records of the hello that a connection begins with, which stay in the socket. Raises
    OSError, and ProtocolError."""
    seen = 0
    while True:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
        data = accepted.recv(MAX_PEEK, socket.MSG_PEEK)
        if hello := parse_client_hello(data):
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            return data[: hello.wire_length]
        if len(data) == seen:
            raise ConnectionError("the client has left")
        seen = len(data)
