"""The floods of the bench: they reach what they are meant to flood."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from bench.floods import FLOODS, Flood
from bench.floods.catalogue import CHUNK
from mitml4.protocols import registry
from mitml4.protocols.conversation import Opening

NAMED = {flood.name: flood for flood in FLOODS}


def opening_of(flood: Flood) -> bytes:
    """What the client says first, on a connection whose server says nothing."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with suppress(OSError):
            flood.client(lambda: theirs, Path())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return ours.recv(CHUNK)
    finally:
        ours.close()
        thread.join()
        theirs.close()


@pytest.mark.parametrize(
    ("prefixes", "protocol"),
    [("h2- hpack-", "http/2"), ("early- pipelined blank- trailers chunks ws-", "http/1")],
)
def test_floods_begin_as_the_protocol_that_they_flood(prefixes: str, protocol: str) -> None:
    floods = [flood for flood in FLOODS if flood.name.startswith(tuple(prefixes.split()))]
    assert floods
    for flood in floods:
        detection = registry.detect(Opening(up=opening_of(flood)))
        assert detection.match, flood.name
        assert detection.match.name == protocol, flood.name


def test_names_of_floods_are_unique() -> None:
    assert len(NAMED) == len(FLOODS)
