"""`python -m bench.profile`: profile mitml4 under one figure's load (as root).

--tool py-spy     samples from outside, with little slowdown; writes stacks for speedscope.app
--tool cprofile   counts every call, several times slower; writes a file for pstats, snakeviz
"""

from __future__ import annotations

import argparse
import collections
import pstats
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.__main__ import RESULTS, pick, size
from bench.figures import FIGURES, Figure, verify
from bench.install import install
from bench.lab import CONGESTION_CONTROL, Lab
from bench.peers import Mitml4One
from mitml4.errors import MachineError, MitmError

__all__ = ["self_times"]

_SHOWN: Final = 30


def self_times(stacks: Iterable[str]) -> list[tuple[str, float]]:
    """Each innermost frame's share of all samples, largest first, from lines `a;b;c COUNT`.

    C functions without a symbol are combined, one `?` per library.
    """
    counts: collections.Counter[str] = collections.Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        counts[re.sub(r"^0x[0-9a-f]+", "?", stack.rpartition(";")[2])] += int(count)
    total = sum(counts.values())
    return [(frame, count / total) for frame, count in counts.most_common()]


def with_cprofile(lab: Lab, figure: Figure) -> None:
    path = RESULTS / f"profile-{figure.name}.pstats"
    counted = Path(__file__).with_name("counted.py")
    peer = Mitml4One(python=(sys.executable, "-P", str(counted), str(path)))
    with peer.standing(lab) as standing:
        verify(lab, standing)
        print(figure.measure(lab, standing))
    pstats.Stats(str(path)).sort_stats("tottime").print_stats(_SHOWN)
    print(f"written: {path}", file=sys.stderr)


def with_py_spy(lab: Lab, figure: Figure) -> None:
    path = RESULTS / f"profile-{figure.name}.stacks"
    with Mitml4One().standing(lab) as standing:
        verify(lab, standing)
        assert standing.pid is not None
        with _sampled(standing.pid, path):
            print(figure.measure(lab, standing))
    for frame, share in self_times(path.read_text().splitlines())[:_SHOWN]:
        print(f"{share:6.1%}  {frame}")
    print(f"written: {path}", file=sys.stderr)


@contextmanager
def _sampled(pid: int, path: Path) -> Iterator[None]:
    """Sample the process, C frames included, while the block runs."""
    tool = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if tool is None:
        raise MachineError(
            "py-spy is not installed", hint=f"{sys.executable} -m pip install py-spy"
        )
    argv = [tool, "record", "--pid", str(pid), "--native", "--rate", "200"]
    sampler = subprocess.Popen([*argv, "--format", "raw", "-o", str(path)])
    try:
        yield
    finally:
        sampler.send_signal(signal.SIGINT)  # makes it finish and write its file
        sampler.wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--figure", default="tls-download")
    parser.add_argument("--size", type=size, default="1G")
    parser.add_argument("--tool", choices=("py-spy", "cprofile"), default="py-spy")
    given = parser.parse_args()
    try:
        [figure] = pick(FIGURES, given.figure)
        install(["mitml4"])
        RESULTS.mkdir(exist_ok=True)
        with Lab.open(given.size, CONGESTION_CONTROL) as lab:
            (with_cprofile if given.tool == "cprofile" else with_py_spy)(lab, figure)
    except MitmError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
