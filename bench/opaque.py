"""Bytes of no known protocol over plain TCP: a server, and a client that reads and drops them.

Run as a script inside a namespace (standard library only). The kernel moves the server's bytes from
a file to the socket, so that Python does not slow down either end.

    client → server   MAGIC, the number of bytes (big-endian, 8 bytes), CR LF
    server → client   that many bytes of the file, repeated

The CR LF is for squid, which needs a line to detect that this is not HTTP. The client stops at the
last byte that it asked for: forwarding of a FIN is not measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import struct
import threading
import time
from pathlib import Path

MAGIC = b"\xf5\xe1bench\x9c"
END = b"\r\n"
REQUEST = struct.Struct(">8sQ2s")
READ_BYTES = 256 * 1024


def answer(connection: socket.socket, file: int, file_bytes: int) -> None:
    with connection:
        request = connection.recv(REQUEST.size, socket.MSG_WAITALL)
        if len(request) < REQUEST.size:
            return
        magic, wanted, end = REQUEST.unpack(request)
        if (magic, end) != (MAGIC, END):
            return
        sent = 0
        while sent < wanted:
            offset = sent % file_bytes
            count = min(wanted - sent, file_bytes - offset)
            sent += os.sendfile(connection.fileno(), file, offset, count)


def serve(host: str, port: int, path: str) -> None:
    with socket.create_server((host, port)) as listener, Path(path).open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        while True:
            connection, _ = listener.accept()
            arguments = (connection, opened.fileno(), size)
            threading.Thread(target=answer, args=arguments, daemon=True).start()


def fetch(host: str, port: int, wanted: int, digest: bool) -> dict[str, object]:
    """Seconds from the request to the last byte, and the number of bytes."""
    buffer = bytearray(READ_BYTES)
    view = memoryview(buffer)
    hashing = hashlib.sha256()
    received = 0
    with socket.create_connection((host, port), timeout=60) as connection:
        started = time.perf_counter()
        connection.sendall(REQUEST.pack(MAGIC, wanted, END))
        while received < wanted and (count := connection.recv_into(buffer)):
            received += count
            if digest:
                hashing.update(view[:count])
        seconds = time.perf_counter() - started
    return {
        "bytes": received,
        "seconds": seconds,
        "sha256": hashing.hexdigest() if digest else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("serve", "fetch"):
        command = commands.add_parser(name)
        command.add_argument("host")
        command.add_argument("port", type=int)
        if name == "serve":
            command.add_argument("path")
        else:
            command.add_argument("bytes", type=int)
            command.add_argument("--digest", action="store_true")
    given = parser.parse_args()
    if given.command == "serve":
        serve(given.host, given.port, given.path)
    else:
        print(json.dumps(fetch(given.host, given.port, given.bytes, given.digest)))


if __name__ == "__main__":
    main()
