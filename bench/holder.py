"""Many open TLS connections, on each of which one request was answered.

`python -m bench.holder` runs inside a namespace. It says how many it holds. A line with a number
asks for so many requests, one after the other: each on one of the connections (`held 50`), or each
on a new one (`new 50`). The answer is the seconds that each took, as JSON. It ends at the end of
its standard input.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import ssl
import sys
import time
from collections.abc import Iterator

from bench.fresh import TIMEOUT_S, Server


def connect(server: Server, source: str) -> ssl.SSLSocket:
    plain = socket.create_connection((server.ip, server.port), TIMEOUT_S, (source, 0))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server.context.wrap_socket(plain, server_hostname=server.name)


def ask_held(server: Server, path: str, held: list[ssl.SSLSocket], count: int) -> Iterator[float]:
    for connection in random.Random(4).choices(held, k=count):
        started = time.perf_counter()
        server.get(connection, path, close=False)
        yield time.perf_counter() - started


def ask_anew(server: Server, path: str, source: str, count: int) -> Iterator[float]:
    for _ in range(count):
        started = time.perf_counter()
        with connect(server, source) as connection:
            server.get(connection, path, close=True)
            yield time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("ip", "name", "trust", "source"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--path", default="/small")
    given = parser.parse_args()
    context = ssl.create_default_context(cafile=given.trust)
    context.set_alpn_protocols(["http/1.1"])
    server = Server(given.ip, given.port, given.name, context)
    held = []
    for _ in range(given.count):
        connection = connect(server, given.source)
        server.get(connection, given.path, close=False)
        held.append(connection)
    print(f"held {len(held)}", flush=True)
    for line in sys.stdin:
        where, count = line.split()
        if where == "held":
            found = list(ask_held(server, given.path, held, int(count)))
        else:
            found = list(ask_anew(server, given.path, given.source, int(count)))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
