"""`python -m bench.floods`: measure each flood's effect on another client; print one table (as
root)."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from bench import machine
from bench.figures import percentile, verify
from bench.floods import FLOODS, Flood
from bench.lab import CONGESTION_CONTROL, SERVER_IP, SERVER_NAME, TLS_PORT, Lab, wait_until
from bench.peers import Direct, Mitml4, Mitml4Payload, Peer, Standing
from bench.processes import MemoryWatch, stop
from mitml4.errors import MachineError, MitmError

FLOOD_PORT: Final = 7000
MARK_MS: Final = 50.0
"""The limit for the other client's p99."""
RESULTS: Final = Path(__file__).parents[1] / "results"
_TREE: Final = Path(__file__).parents[2]
_TIMEOUT_S: Final = 60.0
"""The additional time that the other client may take."""
_DROPPED: Final = re.compile(rb'"dropped_events":([0-9]+)')


@dataclass(frozen=True, slots=True)
class Result:
    """The results of one flood. Times in ms, memory and files in MB."""

    flood: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    new_p50_ms: float
    new_max_ms: float
    """For requests that each make a new connection."""
    failures: int
    rss_growth_mb: float
    cpu_s: float
    output_mb: float
    """JSON lines."""
    dropped: int
    """Events."""
    stop_s: float
    """Time from SIGTERM to the end, during the flood."""


def measure(lab: Lab, peer: Peer, flood: Flood | None, seconds: float) -> Result:
    """Measure one flood with a newly started peer; None: no flood."""
    log = lab.where / peer.name / "output"
    with _flooding(lab, flood, seconds + 2 * _TIMEOUT_S) as begin:
        with peer.standing(lab) as standing:
            verify(lab, standing)
            cpu_s = standing.cpu_s
            with MemoryWatch.over(standing.pid or os.getpid()) as watch:
                told = _ask(lab, standing, seconds, begin)
            cpu_s = standing.cpu_s - cpu_s
            stopped = time.monotonic()
        stop_s = time.monotonic() - stopped
    kept, new = told["kept"], told["new"]
    output = log.read_bytes() if log.exists() else b""
    dropped = _DROPPED.search(output[-10_000:])
    for row in (kept, new):
        for failure in sorted(set(row["failures"])):
            print(f"  {failure} ({row['failures'].count(failure)} times)", file=sys.stderr)
    return Result(
        flood=flood.name if flood else "none",
        p50_ms=percentile(kept["seconds"], 0.5) * 1000,
        p99_ms=percentile(kept["seconds"], 0.99) * 1000,
        max_ms=max(kept["seconds"]) * 1000,
        new_p50_ms=percentile(new["seconds"], 0.5) * 1000,
        new_max_ms=max(new["seconds"]) * 1000,
        failures=len(kept["failures"]) + len(new["failures"]),
        rss_growth_mb=(watch.peak - watch.start) / 1e6,
        cpu_s=cpu_s,
        output_mb=len(output) / 1e6,
        dropped=int(dropped[1]) if dropped else 0,
        stop_s=stop_s,
    )


class _Begin:
    """Starts the client of a flood."""

    def __init__(self, lab: Lab, flood: Flood | None, seconds: float) -> None:
        self.lab, self.flood, self.seconds = lab, flood, seconds
        self.process: subprocess.Popen[Any] | None = None

    def __call__(self) -> None:
        if self.flood:
            self.process = _start(self.lab, "client", self.flood, self.seconds)


@contextmanager
def _flooding(lab: Lab, flood: Flood | None, seconds: float) -> Iterator[_Begin]:
    """The flood's server runs; its client starts on command, and ends with the block."""
    begin = _Begin(lab, flood, seconds)
    server = _start(lab, "server", flood, seconds) if flood else None
    try:
        if server:
            wait_until(lambda: FLOOD_PORT in lab.listening(lab.server), "no flood's server")
        yield begin
    finally:
        for process in (begin.process, server):
            if process:
                stop(process)


def _start(lab: Lab, end: str, flood: Flood, seconds: float) -> subprocess.Popen[Any]:
    argv = [sys.executable, "-m", "bench.floods.flooder", end, flood.name, "--ip", SERVER_IP]
    argv += ["--port", str(FLOOD_PORT), "--where", str(lab.where), "--seconds", str(seconds)]
    host = lab.client if end == "client" else lab.server
    return lab.start(host, argv, log=f"flood-{end}.log", cwd=_TREE)


def _ask(lab: Lab, standing: Standing, seconds: float, begin: _Begin) -> Any:
    """Run the other client, and start the flood when it is ready."""
    argv = [sys.executable, "-m", "bench.floods.innocent", "--ip", SERVER_IP]
    argv += ["--port", str(TLS_PORT), "--name", SERVER_NAME, "--trust", str(standing.trust)]
    argv += ["--seconds", str(seconds)]
    output = lab.where / "innocent.log"
    output.unlink(missing_ok=True)
    client = lab.start(lab.client, argv, log=output.name, cwd=_TREE)
    try:
        wait_until(lambda: output.read_bytes().startswith(b"ready\n"), "the client was not ready")
        begin()
        client.wait(seconds + _TIMEOUT_S)
        _, _, told = output.read_text().partition("ready\n")
        return json.loads(told)
    except (subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        raise MachineError(f"the innocent client gave no result: {error}") from error
    finally:
        stop(client)


def table(results: Sequence[Result]) -> str:
    """Markdown; values above the limit are bold."""
    names = [item.name for item in fields(Result)]
    lines = [names, ["---", *("---:" for _ in names[1:])]]
    for result in results:
        cells = [result.flood]
        for name in names[1:]:
            value = getattr(result, name)
            shown = f"{value:.1f}" if isinstance(value, float) else str(value)
            missed = name == "p99_ms" and value >= MARK_MS
            cells.append(f"**{shown}**" if missed else shown)
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run(given: argparse.Namespace) -> list[Result]:
    wanted = given.only.split(",") if given.only else ["none", *(flood.name for flood in FLOODS)]
    floods = {"none": None} | {flood.name: flood for flood in FLOODS}
    if strange := [name for name in wanted if name not in floods]:
        raise MitmError(f"unknown: {', '.join(strange)}", hint=f"floods are {', '.join(floods)}")
    peer: Peer = Mitml4Payload() if given.payload else Mitml4()
    peer = Direct() if given.direct else peer
    results = []
    with Lab.open(1 << 20, CONGESTION_CONTROL) as lab:
        for name in wanted:
            print(f"{name} …", file=sys.stderr, flush=True)
            try:
                results.append(measure(lab, peer, floods[name], given.seconds))
            except MitmError as error:
                print(f"not measured: {error.message}", file=sys.stderr)
                continue
            print(table(results[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    return results


def save(results: Sequence[Result]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"floods-{time.strftime('%Y%m%d-%H%M%S')}.json"
    details = {"machine": machine.details(), "results": [asdict(result) for result in results]}
    path.write_text(json.dumps(details, indent=1, ensure_ascii=False) + "\n")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.floods", description=__doc__)
    parser.add_argument("--only", metavar="FLOODS", help="some of them, by name")
    parser.add_argument("--seconds", type=float, default=10, help="of each (default: 10)")
    parser.add_argument("--payload", action="store_true", help="mitml4 with --payload")
    parser.add_argument("--direct", action="store_true", help="without mitml4, for comparison")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if os.geteuid() != 0:
            raise MachineError("network namespaces need root", hint="sudo python -m bench.floods")
        results = run(given)
    except MitmError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    print(table(results))
    print(f"written: {save(results)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
