"""Time from the start of a proxy to the first response through it.

The client retries continuously, from before the proxy is started. It trusts only the proxy's CA, so
the first response is the first intercepted one. CAs and redirecting rules exist before the proxy is
started; rules that a proxy adds itself are part of its start.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from bench.figures import Values
from bench.lab import Lab, wait_until
from bench.peers import NotMeasuredError, Peer, Proxy, last_line
from bench.processes import cpu_seconds, stop

__all__ = ["STARTUP", "StartupFigure"]

_STARTS: Final = 5


@dataclass(frozen=True, slots=True)
class StartupFigure:
    """A figure that measures the start of the peer."""

    name: str
    title: str
    rows: ClassVar[str] = "peer"
    base: ClassVar[str] = "direct"

    def measure(self, lab: Lab, peer: Peer) -> Values:
        """The medians of several starts; empty for a peer that is not a program."""
        if not isinstance(peer, Proxy):
            return {}
        starts = [_start(lab, peer) for _ in range(_STARTS)]
        return {name: statistics.median(start[name] for start in starts) for name in starts[0]}


def _start(lab: Lab, peer: Proxy) -> Values:
    with peer.prepared(lab) as prepared:
        output = lab.where / "first"
        output.unlink(missing_ok=True)
        script = str(Path(__file__).with_name("fresh.py"))
        argv = [sys.executable, script, *lab.fresh(prepared.trust, "first")]
        client = lab.start(lab.client, argv, log=output.name)
        try:
            wait_until(lambda: b"trying" in output.read_bytes(), "the client did not start")
            begun = time.monotonic()
            with prepared.started(lab) as process:
                try:
                    client.wait(30)
                except subprocess.TimeoutExpired:
                    why = f"no response came through it: {last_line(prepared.log)}"
                    raise NotMeasuredError(why) from None
                cpu_s = cpu_seconds(process.pid)
        finally:
            stop(client)
        first = json.loads(last_line(output))["first"]
        return {"first_response_ms": (first - begun) * 1000, "start_cpu_ms": cpu_s * 1000}


STARTUP: Final = StartupFigure(
    "startup", f"From the start to the first response ({_STARTS} starts)"
)
