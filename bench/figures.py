"""The figures: each puts one load on one running peer and returns its values.

A figure's values are numbers by name; `QUANTITIES` describes each name. Lengths are verified in
every transfer, digests once before a peer is measured (`verify`). The client trusts only the CA of
the running peer, so a connection that the peer did not intercept fails its handshake: a proxy that
passes connections through cannot produce a figure.
"""

from __future__ import annotations

import filecmp
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from bench.kept_alive import (
    HTTP1_CONNECTIONS,
    HTTP2_CONNECTIONS,
    HTTP2_STREAMS,
    http1_requests,
    http2_requests,
)
from bench.lab import CHECK_BYTES, OPAQUE_PORT, SERVER_IP, Lab, wait_until
from bench.peers import NotMeasuredError, Standing
from bench.processes import MemoryWatch, busy_seconds, stop

__all__ = [
    "FIGURES",
    "QUANTITIES",
    "Figure",
    "Quantity",
    "Values",
    "fairness",
    "percentile",
    "verify",
]

Values: TypeAlias = dict[str, float]

MB: Final = 1e6
GB: Final = 1e9
FRESH_REQUESTS: Final = 1000
FRESH_CONCURRENCY: Final = 32
PARALLEL_FLOWS: Final = 200
IDLE_FLOWS: Final = 200


@dataclass(frozen=True, slots=True)
class Quantity:
    """The meaning of a value, and how it is compared with the base of the same round."""

    label: str
    decimals: int
    versus: str | None = None
    """`ratio`: divided by direct's; `added`: direct's subtracted; None: not compared."""
    of_proxy: bool = False
    """It is a property of the proxy process, so `direct` has none."""


QUANTITIES: Final[dict[str, Quantity]] = {
    "mb_per_s": Quantity("MB/s", 0, versus="ratio"),
    "cpu_s_per_gb": Quantity("CPU s/GB", 2, of_proxy=True),
    "all_cpu_s_per_gb": Quantity("CPU s/GB of all programs", 2),
    "rss_start_mb": Quantity("RSS at start, MB", 1, of_proxy=True),
    "rss_growth_mb": Quantity("RSS growth, MB", 1, of_proxy=True),
    "median_ms": Quantity("median, ms", 2, versus="added"),
    "p95_ms": Quantity("p95, ms", 2, versus="added"),
    "per_second": Quantity("requests/s", 0, versus="ratio"),
    "cpu_us_per_request": Quantity("CPU µs/request", 0, of_proxy=True),
    "first_response_ms": Quantity("start to first response, ms", 0, of_proxy=True),
    "start_cpu_ms": Quantity("CPU until then, ms", 0, of_proxy=True),
    "cpu_ms_per_flow": Quantity("CPU ms each", 2, of_proxy=True),
    "slowest_s": Quantity("last flow done, s", 2),
    "first_s": Quantity("first flow done, s", 2),
    "fairness": Quantity("fairness (Jain)", 3),
    "rss_kib_per_flow": Quantity("RSS per flow, KiB", 1, of_proxy=True),
    "mb": Quantity("MB", 0),
    "packets": Quantity("packets", 0),
    "flows": Quantity("TCP flows", 0),
    "packets_per_s": Quantity("packets/s", 0, versus="ratio"),
    "seconds": Quantity("s", 2),
    "minutes_per_100_gb": Quantity("minutes for 100 GB", 1),
    "cpu_us_per_packet": Quantity("CPU µs/packet", 2),
    "max_rss_mb": Quantity("peak memory, MB", 0),
    "opening_us": Quantity("median, µs", 1),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A load, with its name on the command line and its heading in the report."""

    name: str
    title: str
    measure: Callable[[Lab, Standing], Values]
    rows: ClassVar[str] = "peer"
    base: ClassVar[str] = "direct"
    """The peer with which the others are compared."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by at least `share` (0 < share ≤ 1) of the values."""
    if not values or not 0 < share <= 1:
        raise ValueError("a percentile needs values and a share in (0, 1]")
    rank = -(-len(values) * round(share * 1000) // 1000)
    return sorted(values)[max(rank, 1) - 1]


def fairness(rates: Sequence[float]) -> float:
    """Jain's index: 1 if all flows got the same rate, 1/n if one got everything.

    Jain, Chiu, Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984.
    """
    return sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates))


def verify(lab: Lab, standing: Standing) -> dict[str, str]:
    """Compare the digest of the check file, and return the parameters of both TLS connections. It
    also warms up."""
    if lab.sha256_by_curl(standing.trust, "/check") != lab.check_sha256:
        raise NotMeasuredError("the bytes that arrived are not those that were sent")
    legs: dict[str, str] = lab.script("fresh.py", *lab.fresh(standing.trust, "describe"))
    return legs


def _transfer(lab: Lab, standing: Standing, move: Callable[[], tuple[int, float]]) -> Values:
    """Run a transfer of `lab.size` bytes that returns (bytes moved, seconds); compute the
    values."""
    before, busy_before = standing.cpu_s, busy_seconds()
    if standing.pid is None:
        moved, seconds = move()
        memory: Values = {}
    else:
        with MemoryWatch.over(standing.pid) as watch:
            moved, seconds = move()
        memory = {
            "rss_start_mb": watch.start / MB,
            "rss_growth_mb": (watch.peak - watch.start) / MB,
        }
    if moved != lab.size:
        raise NotMeasuredError(f"{moved} bytes arrived instead of {lab.size}")
    values = {
        "mb_per_s": moved / MB / seconds,
        "all_cpu_s_per_gb": (busy_seconds() - busy_before) / (moved / GB),
    }
    if standing.pid is not None:
        values["cpu_s_per_gb"] = (standing.cpu_s - before) / (moved / GB)
    return values | memory


def _by_curl(
    lab: Lab, standing: Standing, http: str, *options: str, path: str = "/big"
) -> dict[str, Any]:
    [transfer] = lab.curl(standing.trust, f"--http{http}", *options, path=path)
    if transfer["http_version"] != http:
        raise NotMeasuredError(f"it answered in HTTP/{transfer['http_version']}")
    if transfer["http_code"] not in (200, 201, 204):
        raise NotMeasuredError(f"it answered with status {transfer['http_code']}")
    return transfer


def _download(http: str) -> Callable[[Lab, Standing], Values]:
    def measure(lab: Lab, standing: Standing) -> Values:
        def move() -> tuple[int, float]:
            transfer = _by_curl(lab, standing, http)
            return transfer["size_download"], transfer["time_total"] - transfer["time_pretransfer"]

        _by_curl(lab, standing, http, path="/check")
        return _transfer(lab, standing, move)

    return measure


def _upload(lab: Lab, standing: Standing) -> Values:
    source = lab.where / "www" / "big"
    stored = lab.where / "uploaded" / "upload" / "big"

    def move() -> tuple[int, float]:
        transfer = _by_curl(
            lab, standing, "1.1", "-T", str(source), "-H", "Expect:", path="/upload/big"
        )
        return stored.stat().st_size, transfer["time_total"] - transfer["time_pretransfer"]

    try:
        values = _transfer(lab, standing, move)
        if not filecmp.cmp(source, stored, shallow=False):
            raise NotMeasuredError("the bytes that arrived are not those that were sent")
        return values
    finally:
        stored.unlink(missing_ok=True)


def _opaque(lab: Lab, standing: Standing) -> Values:
    def fetch(count: int, *options: str) -> dict[str, Any]:
        place = (SERVER_IP, str(OPAQUE_PORT), str(count))
        transfer: dict[str, Any] = lab.script("opaque.py", "fetch", *place, *options)
        return transfer

    def move() -> tuple[int, float]:
        transfer = fetch(lab.size)
        return transfer["bytes"], transfer["seconds"]

    expected = min(CHECK_BYTES, lab.size)
    check = fetch(expected, "--digest")
    if expected == CHECK_BYTES and check["sha256"] != lab.check_sha256:
        raise NotMeasuredError("the bytes that arrived are not those that were sent")
    return _transfer(lab, standing, move)


def _fresh(concurrency: int) -> Callable[[Lab, Standing], Values]:
    def measure(lab: Lab, standing: Standing) -> Values:
        def load(count: int) -> Any:
            options = lab.fresh(standing.trust, "load", count=count, concurrency=concurrency)
            return lab.script("fresh.py", *options)

        load(4 * concurrency)
        before = standing.cpu_s
        done = load(FRESH_REQUESTS)
        values = {
            "median_ms": statistics.median(done["seconds"]) * 1000,
            "p95_ms": percentile(done["seconds"], 0.95) * 1000,
            "per_second": FRESH_REQUESTS / done["elapsed"],
        }
        if standing.pid is not None:
            values["cpu_ms_per_flow"] = (standing.cpu_s - before) * 1000 / FRESH_REQUESTS
        return values

    return measure


def _parallel(lab: Lab, standing: Standing) -> Values:
    each = lab.size // PARALLEL_FLOWS
    flows: list[dict[str, Any]] = []

    def move() -> tuple[int, float]:
        urls = f"/big?[1-{PARALLEL_FLOWS}]"
        together = ("-Z", "--parallel-immediate", "--parallel-max", str(PARALLEL_FLOWS))
        part = ("--http1.1", "-r", f"0-{each - 1}")
        flows.extend(lab.curl(standing.trust, *together, *part, path=urls))
        moved = sum(flow["size_download"] for flow in flows)
        if moved != each * PARALLEL_FLOWS:
            raise NotMeasuredError(f"{moved} bytes arrived instead of {each * PARALLEL_FLOWS}")
        return lab.size, max(flow["time_total"] for flow in flows)

    values = _transfer(lab, standing, move)
    times = [flow["time_total"] for flow in flows]
    return values | {
        "first_s": min(times),
        "slowest_s": max(times),
        "fairness": fairness([each / time for time in times]),
    }


def _idle(lab: Lab, standing: Standing) -> Values:
    if standing.pid is None:
        return {}
    before = standing.rss_bytes
    script = str(Path(__file__).with_name("fresh.py"))
    argv = [sys.executable, script, *lab.fresh(standing.trust, "hold", count=IDLE_FLOWS)]
    output = lab.where / "held"
    output.unlink(missing_ok=True)
    holder = lab.start(lab.client, argv, log=output.name)
    try:
        wait_until(
            lambda: holder.poll() is not None or b"held" in output.read_bytes(),
            "the idle connections were not up",
        )
        if holder.poll() is not None:
            raise NotMeasuredError("it did not keep the connections open")
        return {"rss_kib_per_flow": (standing.rss_bytes - before) / 1024 / IDLE_FLOWS}
    finally:
        stop(holder)


FIGURES: Final[tuple[Figure, ...]] = (
    Figure("tls-download", "TLS download (HTTP/1.1, one connection)", _download("1.1")),
    Figure("opaque", "Opaque TCP download (no known protocol, one connection)", _opaque),
    Figure("fresh", f"Fresh TLS requests, one after the other ({FRESH_REQUESTS})", _fresh(1)),
    Figure(
        "fresh-32",
        f"Fresh TLS requests, {FRESH_CONCURRENCY} at a time ({FRESH_REQUESTS})",
        _fresh(FRESH_CONCURRENCY),
    ),
    Figure(
        "keepalive",
        f"HTTP/1.1 requests over TLS ({HTTP1_CONNECTIONS} connections; the median: one connection)",
        http1_requests,
    ),
    Figure(
        "http2-requests",
        f"HTTP/2 requests ({HTTP2_CONNECTIONS} connections × {HTTP2_STREAMS} streams; "
        "the median: one stream)",
        http2_requests,
    ),
    Figure("http2-download", "TLS download (HTTP/2, one stream)", _download("2")),
    Figure("upload", "TLS upload (HTTP/1.1, one connection)", _upload),
    Figure("parallel", f"{PARALLEL_FLOWS} TLS downloads at once", _parallel),
    Figure("idle", f"{IDLE_FLOWS} idle TLS connections", _idle),
)
