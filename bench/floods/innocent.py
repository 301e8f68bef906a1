"""A client that requests a small file over TLS at fixed times, and reports the time of each
response.

Run inside a namespace. One persistent connection makes 25 requests per second; five new connections
are made per second. A request's time is measured from the moment when it was due, so that a stall
counts for every request that it delays.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.fresh import Server

KEPT_EVERY_S = 0.04
NEW_EVERY_S = 0.2
PATH = "/small"


@dataclass
class Timed:
    """One series of requests."""

    every_s: float
    ask: Callable[[], object]
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, begin: float, end: float) -> None:
        due = begin
        while due < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                self.ask()
            except (OSError, EOFError, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.seconds.append(time.perf_counter() - due)
            due += self.every_s


def measure(server: Server, seconds: float) -> dict[str, object]:
    """A failed request counts with the time until its failure."""
    kept: list[ssl.SSLSocket] = [server.connect()]
    server.get(kept[0], PATH, close=False)

    def ask_kept() -> None:
        try:
            server.get(kept[0], PATH, close=False)
        except (OSError, EOFError, ValueError):
            kept[0].close()
            kept[0] = server.connect()
            raise

    def ask_new() -> None:
        with server.connect() as connection:
            server.get(connection, PATH, close=True)

    rows = {"kept": Timed(KEPT_EVERY_S, ask_kept), "new": Timed(NEW_EVERY_S, ask_new)}
    print("ready", flush=True)
    begin = time.perf_counter()
    threads = [
        threading.Thread(target=row.run, args=(begin, begin + seconds)) for row in rows.values()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: {"seconds": row.seconds, "failures": row.failures} for name, row in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ip", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--trust", required=True, help="PEM file, the only roots that are trusted")
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    socket.setdefaulttimeout(60)
    context = ssl.create_default_context(cafile=given.trust)
    context.set_alpn_protocols(["http/1.1"])
    server = Server(given.ip, given.port, given.name, context)
    print(json.dumps(measure(server, given.seconds)), flush=True)


if __name__ == "__main__":
    main()
