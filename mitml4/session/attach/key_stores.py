"""Java's key stores of a container with one certificate more, made by a helper.

A PKCS#12 says itself how much work it is to read it (the iterations of PBKDF2, RFC 8018 §4.2, up to
2³¹ of them), and nothing interrupts the library that does it. So a helper without privileges reads
it, and the kernel ends the helper when it has used its CPU time.
"""

from __future__ import annotations

import os
import resource
import socket
from functools import partial
from typing import Any, Final, NoReturn, Self

from mitml4.errors import MachineError, limit_hint
from mitml4.net import helper
from mitml4.net.confinement import confine
from mitml4.net.processes import wait_for_helper
from mitml4.tls.java_keystore import read_truststore, write_jks

__all__ = ["KeyStores", "with_certificate"]

_CPU_S: Final = 2
"""For all key stores of a session."""


class KeyStores:
    """Asks the helper. Close it."""

    def __init__(self, channel: socket.socket, pid: int) -> None:
        self._channel = channel
        self._pid = pid
        self._has_ended = False

    @classmethod
    def start(cls) -> Self:
        """Start the helper, before any thread is started. Raises MachineError."""
        try:
            reader = helper.start(_work)
        except OSError as error:
            reason = f"cannot read key stores: {error.strerror}"
            raise MachineError(reason, hint=limit_hint(error, "--no-trust")) from error
        return cls(reader.channel, reader.pid)

    def with_certificate(self, content: bytes, certificate: bytes) -> bytes | None:
        """As the function. Raises OSError; MachineError if it takes too long."""
        if self._has_ended:
            raise _too_long()
        source, result = os.memfd_create("store"), os.memfd_create("merged")
        try:
            with os.fdopen(os.dup(source), "wb") as out:
                out.write(content)
            answer, _ = helper.ask(
                self._channel, "merge", [source, result], certificate=certificate.hex()
            )
            return _content(result) if answer["is_merged"] else None
        except MachineError as error:
            self._has_ended = True
            raise _too_long() from error
        finally:
            os.close(source)
            os.close(result)

    def close(self) -> None:
        self._channel.close()
        wait_for_helper(self._pid)


def with_certificate(content: bytes, certificate: bytes) -> bytes | None:
    """A key store with one certificate (DER) more. None if it is no key store, or has it
    already."""
    try:
        trusted = read_truststore(content)
    except ValueError:
        return None
    return write_jks([*trusted, certificate]) if trusted and certificate not in trusted else None


def _work(channel: socket.socket) -> NoReturn:
    confine(())
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    helper.send(channel, {}, [])
    helper.serve(channel, _answer, partial(os._exit, 0))


def _answer(_: str, arguments: dict[str, Any], descriptors: list[int]) -> helper.Answer:
    source, result = descriptors
    merged = with_certificate(_content(source), bytes.fromhex(arguments["certificate"]))
    if merged:
        with os.fdopen(os.dup(result), "wb") as out:
            out.write(merged)
    return {"is_merged": merged is not None}, []


def _content(memory: int) -> bytes:
    os.lseek(memory, 0, os.SEEK_SET)
    with open(memory, "rb", closefd=False) as file:
        return file.read()


def _too_long() -> MachineError:
    return MachineError("it cannot be read in time", hint="--no-trust")
