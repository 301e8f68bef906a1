"""`python -m bench.bare`: what a new TLS connection costs in trio with its cryptography alone.

A relay between plain sockets on the loopback moves messages of the sizes of two handshakes of TLS
1.3, of a request and of its response. For each connection it calls the primitives that the bridge
calls, with trio and the system calls that this takes; it parses, checks and reports nothing. So its
CPU time is what is left if all of mitml4's own code took none.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
import resource
import socket
import threading
from collections.abc import Callable
from typing import Final

import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HELLO, FLIGHT, LEAF, FINISHED, REQUEST, TICKETS, RESPONSE = 517, 960, 1265, 80, 89, 606, 1319
"""Bytes of curl's hello, nginx's flight, ours, a Finished with its ChangeCipherSpec, …"""
_HMACS: Final = 44
_DIGESTS: Final = 24
_CIPHERS: Final = 8
_RECORDS: Final = 12
_SIGNATURE: Final = ec.ECDSA(hashes.SHA256())
_KEY: Final = ec.generate_private_key(ec.SECP256R1())
_PUBLIC: Final = _KEY.public_key()
_PROOF: Final = _KEY.sign(b"transcript", _SIGNATURE)
_PEER: Final = X25519PrivateKey.generate().public_key().public_bytes_raw()
_SECRET: Final = os.urandom(48)


def primitives() -> None:
    """Those of one connection, of both legs."""
    for _ in range(2):
        own = X25519PrivateKey.generate()
        own.public_key().public_bytes_raw()
        own.exchange(X25519PublicKey.from_public_bytes(_PEER))
    _PUBLIC.verify(_PROOF, b"transcript", _SIGNATURE)
    _KEY.sign(b"transcript", _SIGNATURE)
    for _ in range(_HMACS):
        hmac.digest(_SECRET, _SECRET, "sha384")
    transcript = hashlib.sha384()
    for _ in range(_DIGESTS):
        transcript.update(_SECRET)
        transcript.copy().digest()
    ciphers = [AESGCM(_SECRET[:32]) for _ in range(_CIPHERS)]
    for number in range(_RECORDS):
        ciphers[number % _CIPHERS].encrypt(_SECRET[:12], bytes(200), None)


async def relay(client: trio.SocketStream, port: int, work: Callable[[], None]) -> None:
    """One connection: the handshakes, then both directions until both have ended."""
    async with client, await trio.open_tcp_stream("127.0.0.1", port) as server:
        await _move(client, server, HELLO)
        await _move(server, client, FLIGHT, LEAF)
        work()
        await _move(client, server, FINISHED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_copy, server, client)
            await _copy(client, server)


async def _move(
    source: trio.SocketStream, sink: trio.SocketStream, size: int, sent: int | None = None
) -> None:
    got = 0
    while got < size:
        got += len(await source.receive_some(size - got))
    await sink.send_all(bytes(sent or size))


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    while data := await source.receive_some(8192):
        await sink.send_all(data)
    await sink.send_eof()


def serve(listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        with sock:
            _read(sock, HELLO)
            sock.sendall(bytes(FLIGHT))
            _read(sock, FINISHED)
            sock.sendall(bytes(TICKETS))
            _read(sock, REQUEST)
            sock.sendall(bytes(RESPONSE))
            sock.shutdown(socket.SHUT_WR)
            _read(sock, 1)


def ask(port: int, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(bytes(HELLO))
            _read(sock, LEAF)
            sock.sendall(bytes(FINISHED))
            sock.sendall(bytes(REQUEST))
            _read(sock, TICKETS + RESPONSE)


def _read(sock: socket.socket, size: int) -> None:
    while size and (data := sock.recv(size)):
        size -= len(data)


def _in_child(work: Callable[[], None]) -> int:
    """Run this in a separate process."""
    if child := os.fork():
        return child
    work()
    os._exit(0)


def measure(count: int, threads: int, work: Callable[[], None]) -> float:
    """CPU seconds of the relay for each connection."""
    upstream, ours = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    port, our_port = upstream.getsockname()[1], ours.getsockname()[1]
    server = _in_child(lambda: _in_threads(threads, lambda: serve(upstream)))

    async def main() -> None:
        async def handle(stream: trio.SocketStream) -> None:
            await relay(stream, port, work)

        ours.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(ours))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, handle, [listener])
            client = _in_child(
                lambda: _in_threads(threads, lambda: ask(our_port, count // threads))
            )
            await trio.to_thread.run_sync(os.waitpid, client, 0)
            nursery.cancel_scope.cancel()

    before = resource.getrusage(resource.RUSAGE_SELF)
    trio.run(main)
    after = resource.getrusage(resource.RUSAGE_SELF)
    os.kill(server, 9)
    os.waitpid(server, 0)
    upstream.close()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used / (count // threads * threads)


def _in_threads(number: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    given = parser.parse_args()
    for name, work in (("trio alone", lambda: None), ("trio and primitives", primitives)):
        seconds = measure(given.count, given.concurrency, work)
        print(f"{name}: {seconds * 1000:.2f} ms of CPU for each connection", flush=True)


if __name__ == "__main__":
    main()
