"""Small requests on connections that stay open: wrk for HTTP/1.1, h2load for HTTP/2.

Each figure has two loads. Many parallel requests give requests per second and CPU per request.
Sequential requests on one connection give the median time of a request. Neither program verifies
certificates, so a verifying connection is made after the load: it fails if the peer has begun to
pass connections through.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from bench.lab import ENVIRONMENT, SERVER_IP, SERVER_NAME, TLS_PORT, Lab
from bench.peers import NotMeasuredError, Standing

__all__ = [
    "HTTP1_CONNECTIONS",
    "HTTP2_CONNECTIONS",
    "HTTP2_STREAMS",
    "Load",
    "h2load",
    "http1_requests",
    "http2_requests",
    "parse_h2load",
    "parse_wrk",
    "wrk",
]

HTTP1_CONNECTIONS: Final = 32
HTTP2_CONNECTIONS: Final = 4
HTTP2_STREAMS: Final = 8
_WARM_UP_S: Final = 1
_MANY_S: Final = 5
_ONE_S: Final = 2
_URL: Final = f"https://{SERVER_NAME}/small"
_SCRIPT: Final = str(Path(__file__).with_name("wrk.lua"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The results of a load."""

    requests: int
    seconds: float
    median_ms: float


LoadProgram: TypeAlias = Callable[[Lab, int, int, int], Load]
"""Connections, streams per connection, seconds."""


def http1_requests(lab: Lab, standing: Standing) -> dict[str, float]:
    """32 connections of wrk; one connection of wrk."""
    return _measure(lab, standing, wrk, HTTP1_CONNECTIONS, 1)


def http2_requests(lab: Lab, standing: Standing) -> dict[str, float]:
    """4 connections of h2load with 8 streams each; one connection with one stream."""
    return _measure(lab, standing, h2load, HTTP2_CONNECTIONS, HTTP2_STREAMS)


def _measure(
    lab: Lab, standing: Standing, program: LoadProgram, connections: int, streams: int
) -> dict[str, float]:
    program(lab, connections, streams, _WARM_UP_S)
    before = standing.cpu_s
    many = program(lab, connections, streams, _MANY_S)
    cpu_s = standing.cpu_s - before
    one = program(lab, 1, 1, _ONE_S)
    lab.script("fresh.py", *lab.fresh(standing.trust, "describe"))
    values = {"median_ms": one.median_ms, "per_second": many.requests / many.seconds}
    if standing.pid is not None:
        values["cpu_us_per_request"] = cpu_s * 1e6 / many.requests
    return values


def wrk(lab: Lab, connections: int, streams: int, seconds: int) -> Load:
    """wrk accepts the server's address only as a name, hence a separate hosts file."""
    hosts = lab.where / "hosts"
    hosts.write_text(f"{SERVER_IP} {SERVER_NAME}\n")
    argv = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "-s", _SCRIPT, _URL]
    mounted = f'mount --bind "{hosts}" /etc/hosts && exec "$@"'
    shown = lab.client.run(
        "unshare", "--mount", "sh", "-c", mounted, "sh", *argv, env=ENVIRONMENT
    ).stdout
    return parse_wrk(shown)


def parse_wrk(shown: str) -> Load:
    """Parse the output of wrk.lua. Raises NotMeasuredError if a request failed."""
    told = json.loads(shown.splitlines()[-1])
    if told["failed"] or not told["requests"]:
        raise NotMeasuredError(f"{told['failed']} requests failed of {told['requests']}")
    return Load(
        requests=told["requests"], seconds=told["seconds"], median_ms=told["median_us"] / 1000
    )


def h2load(lab: Lab, connections: int, streams: int, seconds: int) -> Load:
    log = lab.where / "h2load.log"
    log.unlink(missing_ok=True)
    shown = lab.client.run(
        *("h2load", "-c", str(connections), "-m", str(streams), "-D", str(seconds)),
        *("--npn-list", "h2", "--connect-to", f"{SERVER_IP}:{TLS_PORT}"),
        *("--log-file", str(log), _URL),
        env=ENVIRONMENT,
    ).stdout
    return parse_h2load(shown, log.read_text() if log.exists() else "", seconds)


def parse_h2load(shown: str, log: str, seconds: int) -> Load:
    """Count the requests that h2load completed. Raises NotMeasuredError if a request failed.

    The log has one line per request: its start, its status (-1: it failed), its microseconds.
    """
    if "Application protocol: h2\n" not in shown:
        raise NotMeasuredError("it does not speak HTTP/2")
    failed = re.search(r"(\d+) failed, (\d+) errored", shown)
    rows = [line.split("\t") for line in log.splitlines()]
    if not rows or failed is None or failed.groups() != ("0", "0"):
        raise NotMeasuredError(f"requests failed: {failed[0] if failed else 'h2load says nothing'}")
    if strange := {status for _, status, _ in rows} - {"200"}:
        raise NotMeasuredError(f"it answered with status {', '.join(sorted(strange))}")
    times = [int(microseconds) for _, _, microseconds in rows]
    return Load(requests=len(rows), seconds=seconds, median_ms=statistics.median(times) / 1000)
