"""`mitml4.read`: the flows of a file, which is a capture or has the events of a session."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from mitml4.capture.files.reader import packets_of
from mitml4.capture.files.source import Source
from mitml4.capture.tls.secrets import Secrets
from mitml4.errors import CaptureError, cannot_read
from mitml4.model.builder import FlowBuilder
from mitml4.model.flow import Flow
from mitml4.model.lines import read_objects
from mitml4.payload.budget import SessionPayload
from mitml4.protocols.payload import Shown
from mitml4.session.detect import CaptureSession

__all__ = ["read", "read_stream"]

_BEGINS_AN_OBJECT: Final = b"{"


def read(
    path: str | os.PathLike[str],
    *,
    keylog: str | os.PathLike[str] | None = None,
    tunnels: bool = True,
    payload: bool = False,
    show_secrets: bool = False,
) -> Iterator[Flow]:
    """The flows of a file, each when it has closed; those that never closed come last.

    The file is a capture (pcap or pcapng), or has events as JSON lines (`-o FILE`, `--json`); it
    may be compressed (.gz, .zst). TLS of a capture is decrypted with the secrets in a pcapng and
    in `keylog` (SSLKEYLOGFILE's format). With `tunnels`, flows inside IP-in-IP, GRE, VXLAN, Geneve,
    GTP and Teredo are included. With `payload`, bodies, messages and the bytes of other innermost
    layers are kept, 64 KiB of each. Passwords, cookies and the like are redacted, unless
    `show_secrets`. These options do not apply to events.

    The file is read while you iterate, and closed at the end, or when the iterator is closed.
    Memory does not grow with the file, but with the flows that are open at the same time and what
    they have exchanged.

    Raises MitmError where the file cannot be opened or is broken, after all flows before that
    place. The message names the line or the offset.
    """
    with _opened(path) as stream:
        yield from read_stream(
            stream,
            str(path),
            keylog=keylog,
            tunnels=tunnels,
            payload=payload,
            show_secrets=show_secrets,
        )


def read_stream(
    stream: BinaryIO,
    name: str,
    *,
    keylog: str | os.PathLike[str] | None = None,
    tunnels: bool = True,
    payload: bool = False,
    show_secrets: bool = False,
) -> Iterator[Flow]:
    """Like `read`, from a stream, which the caller closes. `name` is its name in errors."""
    secrets = Secrets()
    if keylog is not None:
        with _opened(keylog) as lines:
            for line in lines:
                secrets.add(line)
    source = Source(stream, name)
    if source.data.lstrip().startswith(_BEGINS_AN_OBJECT):
        yield from _from_lines(source)
    else:
        bounds = SessionPayload(left=sys.maxsize).of_flow() if payload else None
        shown = Shown(headers=True, redacts=not show_secrets, payload=bounds)
        yield from _from_capture(
            source, CaptureSession(tunnels=tunnels, shown=shown, secrets=secrets)
        )


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise cannot_read(CaptureError, path, error) from error


def _from_lines(source: Source) -> Iterator[Flow]:
    builder = FlowBuilder()
    failure: CaptureError | None = None
    try:
        for number, said in read_objects(source):
            yield from _added(builder, said, f"{source.name}: line {number}")
    except CaptureError as error:
        failure = error
    yield from builder.finish()
    if failure:
        raise failure


def _added(builder: FlowBuilder, said: dict[str, object], where: str) -> list[Flow]:
    try:
        return builder.add(said)
    except (LookupError, OverflowError, TypeError, ValueError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"is wrong: {error}"
        raise CaptureError(
            f"{where} is no event of mitml4: its {said['type']} {what}",
            hint="mitml4 schema describes the events",
        ) from None


def _from_capture(source: Source, session: CaptureSession) -> Iterator[Flow]:
    """A flow of a capture always closes, also if the capture is broken."""
    builder = FlowBuilder()
    packets = packets_of(source, session.secrets.add, session.add_comment)
    for event in session.events(packets):
        yield from builder.add(event)
