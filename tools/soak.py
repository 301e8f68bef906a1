"""Keep sessions of mitml4 under load and faults for minutes, and tell what they have left.

    python tools/soak.py --minutes 20 --seed 7
    python tools/soak.py --seconds 40 --stages plain,outputs --light

Clients and servers of other projects talk in a lab of network namespaces. Stages follow each
other, each with a session of its own options and faults; a stage repeats: faults under load, then a
calm in which a client of each kind has to get all. At its end, with no flow open, the session may
have no more descriptors, tasks and threads than after its first calm, no other rules, and at most
32 MiB more memory; the pipes that are kept for the next flow (64 a process) are counted apart.
docs/endurance.md describes it.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from soaking.clients import KINDS, KINDS_WITH_DATABASES
from soaking.faults import FAULTS, Victim
from soaking.isolated_server import IsolatedServer
from soaking.lab import Lab
from soaking.load import Load
from soaking.measure import Held
from soaking.servers import Site, start_databases, start_servers
from soaking.session import EndedError, Session

ROOT: Final = Path(__file__).parent.parent
UNCHANGING: Final = ROOT / "tools" / "unchanging"

MORE_BYTES: Final = 32 << 20
"""What a session may have more at its end than after its first calm: what its caches hold."""
IDLE_PIPES: Final = 3 * 2 * 64
"""Ends of pipes that `net.splice.PipePool` keeps, of three processes."""
QUIET_S: Final = 90.0
"""How long flows may stay open after their clients have gone: TCP repeats what was lost later and
later."""
DISK_BYTES: Final = 24 << 20

LINK: Final = ("loss", "delay", "reordering", "narrow path", "flaps")
OTHERS: Final = ("flushes", "killed servers", "frozen servers", "frozen session", "clock")
LIMITED: Final = (
    *("sh", "-c", 'ulimit -n 400 && ulimit -d 600000 && exec "$@"', "sh"),
    *("setpriv", "--bounding-set=-sys_resource"),  # root may raise limits, and mitml4 does
)


@dataclass(frozen=True, slots=True)
class Stage:
    """A session, and what is done to it."""

    share: int
    """Of the time."""
    faults: Sequence[str]
    options: Callable[[Path], Sequence[str]] = lambda _: ()
    """Given the directory of its outputs."""
    limits: Sequence[str] = ()
    code: int = 0
    """With which it ends."""
    tolerated: Sequence[str] = ()
    """Reasons of internal errors that the faults may have."""


def _all_outputs(disk: Path) -> Sequence[str]:
    files = {
        "-o": "events",
        "--har": "har",
        "-w": "pcapng",
        "--pcap-plain": "plain",
        "--keylog": "k",
    }
    written = ["--workers", "2"]
    written += [part for option, name in files.items() for part in (option, str(disk / name))]
    edits = ["--script", str(UNCHANGING / "identity.py"), "--rules", str(UNCHANGING / "never.toml")]
    return [*written, *edits, "--payload", "--headers"]


STAGES: Final = {
    "plain": Stage(6, (*LINK, *OTHERS), lambda _: ("--workers", "1")),
    "outputs": Stage(4, (*LINK, *OTHERS, "full disk"), _all_outputs, code=1),
    "workers": Stage(
        3,
        (*LINK, *OTHERS, "killed workers"),
        lambda _: ("--workers", "3"),
        tolerated=("the worker process that carried it has ended",),
    ),
    "limits": Stage(
        3,
        (*LINK, *OTHERS, "descriptors"),
        lambda _: ("--workers", "1", "--tls-engine", "openssl"),
        LIMITED,
        tolerated=(os.strerror(errno.EMFILE),),
    ),
}


@dataclass(slots=True)
class Soak:
    """One run."""

    lab: Lab
    site: Site
    servers: Sequence[IsolatedServer]
    options: argparse.Namespace
    started: float
    problems: list[str] = field(default_factory=list)
    flows: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def say(self, text: str) -> None:
        print(f"{(time.monotonic() - self.started) / 60:5.1f} min  {text}", flush=True)

    def run_stage(self, name: str, seconds: float) -> None:
        stage, number = STAGES[name], list(STAGES).index(name)
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-stage-")))
            disk = stack.enter_context(small_disk(directory / "disk"))
            session = Session(
                self.lab,
                self.site,
                directory,
                stage.options(disk),
                stage.limits,
                stage.tolerated,
            )
            stack.callback(session.process.kill)
            seed = 1_000_003 * self.options.seed + 10_007 * number
            load = Load(
                self.lab.client,
                self.site,
                session.roots,
                KINDS if self.options.light else KINDS_WITH_DATABASES,
                seed=seed,
                threads=self.options.clients,
                pause_s=self.options.pause,
            )
            try:
                Course(self, name, stage, session, load, disk, random.Random(seed)).run(seconds)
            except TimeoutError as error:
                session.problems.append(f"{error}; it said: {session.said}")
            self.flows += len(session.opened)
            self.ended.update(load.ended)
            self.problems += [f"{name}: {each}" for each in session.problems + load.problems]


@dataclass(slots=True)
class Course:
    """A stage that runs."""

    soak: Soak
    name: str
    stage: Stage
    session: Session
    load: Load
    disk: Path
    rng: random.Random
    said_at: float = 0.0

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        waiting = list(self.stage.faults)
        self.rng.shuffle(waiting)
        self.apply(())
        self.check_calm()
        first = self.session.measure()
        self.say(f"after the first calm: {first}")
        while time.monotonic() < deadline:
            count = self.rng.choice((1, 1, 2, 3))
            chosen, waiting = waiting[:count], waiting[count:] or list(self.stage.faults)
            self.apply(chosen)
            self.check_calm()
            if time.monotonic() - self.said_at > 60:
                self.said_at = time.monotonic()
                self.say(f"{self.session.measure()}")
        self.end(first)

    def apply(self, names: Sequence[str]) -> None:
        """Load, and these faults at the same time."""
        over = threading.Event()
        soak = self.soak
        victim = Victim(soak.lab, self.session, soak.servers, self.disk, self.rng, over)
        timer = threading.Timer(soak.options.fault_s * (0.5 + self.rng.random()), over.set)
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(FAULTS[name](victim))
            timer.start()
            stack.callback(over.set)
            self.load.run(over)

    def check_calm(self) -> None:
        """All is as it was; a client of each kind has to get all, and no flow stays open."""
        self.soak.lab.mend()
        for server in self.soak.servers:
            server.wait_until_ready()
        self.load.check()
        if not self.session.wait_quiet(QUIET_S):
            open_flows = sorted(self.session.opened - self.session.closed)[:10]
            self.session.problems.append(f"flows stay open: {open_flows}")

    def end(self, first: Held) -> None:
        last = self.session.measure()
        self.say(f"in the end:           {last}")
        self.session.problems += compare(first, last)
        self.session.check_rules()
        self.session.stop(self.stage.code)
        self.say(
            f"{len(self.session.opened)} flows, {len(self.session.closed)} closed: "
            + ", ".join(f"{count} {why}" for why, count in self.session.reasons.most_common())
        )

    def say(self, text: str) -> None:
        session, load = self.session, self.load
        ended = ", ".join(f"{load.ended[how]} {how}" for how in ("well", "cut", "killed"))
        wrong = len(session.problems) + len(load.problems)
        self.soak.say(
            f"{self.name}: {len(session.opened)} flows, clients: {ended}; {text}; {wrong} problems"
        )


def compare(first: Held, last: Held) -> list[str]:
    """What a session holds in the end, and should not."""
    problems = []
    if more := last.descriptors_beyond(first, IDLE_PIPES):
        problems.append(f"descriptors are left: {dict(more)}")
    for what in ("tasks", "threads", "processes"):
        before, after = getattr(first, what), getattr(last, what)
        if after > before:
            problems.append(f"{after} {what}, and {before} in the beginning")
    if last.resident_bytes > first.resident_bytes + MORE_BYTES:
        grown = (last.resident_bytes - first.resident_bytes) / 2**20
        problems.append(f"{grown:.0f} MiB more memory")
    return problems


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "soak", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20, help="(default: 20)")
    parser.add_argument("--seconds", type=float, help="instead of minutes")
    parser.add_argument("--seed", type=int, help="of all choices (default: another one each time)")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"of {', '.join(STAGES)}")
    parser.add_argument("--light", action="store_true", help="without databases")
    parser.add_argument("--clients", type=int, default=5, help="at a time (default: 5)")
    parser.add_argument("--pause", type=float, default=0.4, help="between two clients, in seconds")
    parser.add_argument("--fault-s", type=float, default=8, help="how long faults last")
    options = parser.parse_args()
    options.stages = options.stages.split(",")
    options.seconds = options.seconds or options.minutes * 60
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10**6)
    if unknown := set(options.stages) - STAGES.keys():
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    options = parse()
    # SIGTERM must remove the lab, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    print(f"seed {options.seed}, {options.seconds:.0f} s, stages: {', '.join(options.stages)}")
    with ExitStack() as stack:
        files = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        lab = stack.enter_context(Lab(options.seed))
        site = Site.make(files, random.Random(options.seed))
        servers = start_servers(lab, site)
        if not options.light:
            servers += start_databases(lab, site)
        for server in servers:
            stack.callback(server.kill)
        soak = Soak(lab, site, servers, options, started)
        shares = sum(STAGES[name].share for name in options.stages)
        for name in options.stages:
            try:
                soak.run_stage(name, options.seconds * STAGES[name].share / shares)
            except (EndedError, TimeoutError) as error:
                soak.problems.append(f"{name}: {error}")
                lab.mend()
    for problem in soak.problems:
        print(f"PROBLEM: {problem}")
    print(
        f"seed {options.seed}: {soak.flows} flows, clients: "
        + ", ".join(f"{count} {how}" for how, count in soak.ended.most_common())
        + f"; {len(soak.problems)} problems"
    )
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
