"""Many new TLS connections with one small GET each, the first successful one, or many idle ones.

Run as a script inside a namespace (standard library only). No session is resumed: each connection
makes a full handshake. Time is measured from connect to the last byte of the response.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import ssl
import threading
import time
from dataclasses import dataclass

READ_BYTES = 16 * 1024
TIMEOUT_S = 60
RETRY_S = 0.005


@dataclass(frozen=True)
class Server:
    ip: str
    port: int
    name: str
    context: ssl.SSLContext

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection((self.ip, self.port), timeout=TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(plain, server_hostname=self.name)

    def get(self, connection: ssl.SSLSocket, path: str, *, close: bool) -> bytes:
        """The body of a response with a Content-Length."""
        manner = "close" if close else "keep-alive"
        request = f"GET {path} HTTP/1.1\r\nHost: {self.name}\r\nConnection: {manner}\r\n\r\n"
        connection.sendall(request.encode())
        return read_body(connection)


def read_body(connection: ssl.SSLSocket) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += receive(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ValueError(f"the answer was not a 200: {head[:60]!r}")
    lines = head.lower().split(b"\r\n")
    lengths = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")]
    while len(body) < lengths[0]:
        body += receive(connection)
    return body


def receive(connection: ssl.SSLSocket) -> bytes:
    data = connection.recv(READ_BYTES)
    if not data:
        raise EOFError("the connection ended within the answer")
    return data


def describe(server: Server) -> dict[str, object]:
    """The TLS parameters of the client's connection, and those that the server reports for its
    own."""
    with server.connect() as connection:
        seen = server.get(connection, "/tls", close=True).decode().strip()
        cipher = connection.cipher()
        return {
            "client_leg": f"{connection.version()} {cipher[0] if cipher else ''}".strip(),
            "server_leg": seen,
        }


def load(server: Server, path: str, count: int, concurrency: int) -> dict[str, object]:
    """`count` new requests from `concurrency` threads: seconds for each, and in total."""
    seconds: list[float] = []
    failures: list[BaseException] = []
    tickets = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        try:
            while not failures:
                with lock:
                    if next(tickets, None) is None:
                        return
                started = time.perf_counter()
                with server.connect() as connection:
                    server.get(connection, path, close=True)
                    seconds.append(time.perf_counter() - started)
        except BaseException as error:  # raised below, in the main thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    if failures:
        raise failures[0]
    return {"seconds": seconds, "elapsed": elapsed}


def hold(server: Server, path: str, count: int) -> None:
    """Open connections that have each made one request, report that, and keep them until a
    signal."""
    held = []
    for _ in range(count):
        connection = server.connect()
        server.get(connection, path, close=False)
        held.append(connection)
    print(f"held {len(held)}", flush=True)
    signal.pause()


def first(server: Server, path: str) -> None:
    """Try until a request has succeeded, and print the time (CLOCK_MONOTONIC, seconds).

    Until then the connection is refused, or reaches a server whose certificate is not trusted.
    """
    print("trying", flush=True)
    while True:
        try:
            with server.connect() as connection:
                server.get(connection, path, close=True)
        except (OSError, EOFError):  # ssl.SSLError is an OSError
            time.sleep(RETRY_S)
        else:
            print(json.dumps({"first": time.monotonic()}))
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("describe", "load", "first", "hold"))
    parser.add_argument("--ip", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--trust", required=True, help="PEM file, the only roots that are trusted")
    parser.add_argument("--path", default="/small")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=1)
    given = parser.parse_args()
    context = ssl.create_default_context(cafile=given.trust)
    context.set_alpn_protocols(["http/1.1"])
    server = Server(given.ip, given.port, given.name, context)
    match given.command:
        case "describe":
            print(json.dumps(describe(server)))
        case "load":
            print(json.dumps(load(server, given.path, given.count, given.concurrency)))
        case "first":
            first(server, given.path)
        case "hold":
            hold(server, given.path, given.count)


if __name__ == "__main__":
    main()
