"""One end of a flood, run inside a namespace: `-m bench.floods.flooder client|server NAME …`."""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from bench.floods import FLOODS, Flood

_BACKLOG = 4096
_AGAIN_S = 0.05


def serve(flood: Flood, ip: str, port: int, where: Path) -> None:
    def carry(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            flood.server(connection, where)

    threading.stack_size(256 * 1024)
    with socket.create_server((ip, port), backlog=_BACKLOG) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=carry, args=(connection,), daemon=True).start()


def attack(flood: Flood, ip: str, port: int, where: Path, seconds: float) -> None:
    """Flood for this time, with a new connection whenever one has ended."""

    def connect() -> socket.socket:
        return socket.create_connection((ip, port))

    def keep_on() -> None:
        while True:
            with suppress(OSError):
                flood.client(connect, where)
            time.sleep(_AGAIN_S)

    threading.Thread(target=keep_on, daemon=True).start()
    time.sleep(seconds)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("end", choices=("client", "server"))
    parser.add_argument("name", choices=[flood.name for flood in FLOODS])
    parser.add_argument("--ip", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--where", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600)
    given = parser.parse_args()
    (flood,) = (flood for flood in FLOODS if flood.name == given.name)
    if given.end == "server":
        serve(flood, given.ip, given.port, given.where)
    else:
        attack(flood, given.ip, given.port, given.where, given.seconds)


if __name__ == "__main__":
    main()
