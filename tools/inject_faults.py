"""Let system calls of a session fail, one at a time, and tell what comes of each.

    python tools/inject_faults.py                     each call of some visits, with each error
    python tools/inject_faults.py accept4 splice      only these
    python tools/inject_faults.py --sample 20 --seed 1

strace is attached to a session, and lets its N-th call of a kind fail, while clients visit servers:
requests within TLS, bytes that nobody knows, and a port that is closed. Then each flow has to be
told as closed, with no internal error but one of the machine's; the session has no more descriptors
and tasks than before, and the same visits succeed. A session may end instead, with an error of one
line and a hint, and then leaves nothing. docs/endurance.md has what a run has shown.
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
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from soaking.lab import Lab
from soaking.measure import Held
from soaking.servers import Site, start_web_and_echo
from soaking.session import EndedError, Session
from soaking.visits import VISITS, visit_all

_NOTHING_LEFT: Final = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")
_AGAIN: Final = ("EINTR", "EAGAIN")
_GONE: Final = ("ECONNRESET", "EPIPE", "ETIMEDOUT")

CALLS: Final[dict[str, Sequence[str]]] = {
    "accept4": (*_NOTHING_LEFT, *_AGAIN, "ECONNABORTED", "EPERM"),
    "socket": _NOTHING_LEFT,
    "connect": ("ENOBUFS", "ENOMEM", "EADDRNOTAVAIL", "ENETUNREACH", "EPERM"),
    "bind": ("ENOMEM", "EADDRINUSE", "EADDRNOTAVAIL"),
    "recvfrom": (*_AGAIN, "ENOBUFS", "ENOMEM"),
    "recvmsg": (*_AGAIN, "ENOBUFS", "ENOMEM"),
    "read": (*_AGAIN, "ENOMEM", "ECONNRESET"),
    "sendto": (*_AGAIN, "ENOBUFS", "ENOMEM", "EPERM"),
    "sendmsg": (*_AGAIN, "ENOBUFS", "ENOMEM", *_GONE),
    "write": (*_AGAIN, "ENOMEM", *_GONE),
    "splice": (*_AGAIN, "ENOMEM", *_GONE),
    "pipe2": ("EMFILE", "ENFILE", "ENOMEM"),
    "fcntl": ("EPERM", "ENOMEM"),
    "ioctl": ("ENOMEM",),
    "epoll_wait": ("EINTR",),
    "setsockopt": ("ENOBUFS", "ENOMEM", "EINVAL"),
    "getsockopt": ("ENOBUFS", "ENOMEM"),
    "getsockname": ("ENOBUFS",),
    "getpeername": ("ENOBUFS", "ENOTCONN"),
    "openat": ("EMFILE", "ENFILE", "ENOMEM"),
    "clone,clone3": ("EAGAIN", "ENOMEM"),
}
"""The kinds of calls, and how they may fail. Left out: what a kernel does not do (shutdown fails
only where nobody is connected any more; epoll_ctl where it adds, and not where it changes; recvfrom
and sendto are also those of netlink, where nobody is reset), and what strace only pretends (a short
write; a connect that is interrupted, and yet connects)."""

FRESH: Final = {"pipe2"}
"""Made only once, so that each needs a new session."""

MAX_CALLS: Final = 200
"""Calls of one kind that fail; a session makes fewer."""
QUIET_S: Final = 20.0
SETTLED_S: Final = 0.1
REST_S: Final = 1.2
LOOKS: Final = 10
IDLE_PIPES: Final = 8
"""Ends of pipes that are kept for the next flow."""


@dataclass(frozen=True, slots=True)
class Case:
    call: str
    error: str
    number: int
    """Which one fails, counted from 1."""

    def __str__(self) -> str:
        return f"{self.call} {self.number} {self.error}"


class Injector:
    """Runs cases on a session, which is started again when it has ended."""

    def __init__(self, lab: Lab, site: Site, directory: Path) -> None:
        self.lab = lab
        self.site = site
        self.directory = directory
        self._count = 0
        self.session: Session
        self.held: Held
        self.start()

    def start(self, visits: int = 2) -> None:
        self._count += 1
        place = self.directory / str(self._count)
        place.mkdir()
        tolerated = [os.strerror(number) for number in errno.errorcode]
        self.session = Session(self.lab, self.site, place, (), (), tolerated)
        for _ in range(visits):
            if failed := self.visit():
                raise EndedError(f"nothing was wrong, and yet: {failed}")
        self.session.wait_quiet(QUIET_S)
        if visits:
            self.held = self._measure_at_rest()

    def _measure_at_rest(self) -> Held:
        """With the most tasks of a second or two: after the rules of the host have changed, as at a
        start, the session sleeps for a second in place of two tasks that wait for a change."""
        time.sleep(REST_S)
        looks = []
        for _ in range(LOOKS):
            looks.append(self.session.measure())
            time.sleep(REST_S / LOOKS)
        return max(looks, key=lambda held: held.tasks)

    def visit(self) -> list[str]:
        """What has failed."""
        return self.lab.client.call(lambda: visit_all(self.session.roots))

    @contextmanager
    def failing(self, case: Case) -> Iterator[Path]:
        """A file that tells whether it has failed."""
        told = self.directory / "strace"
        rule = f"inject={case.call}:error={case.error}:when={case.number}"
        argv = ["strace", "-f", "-o", str(told), "-p", str(self.session.process.pid), "-e", rule]
        strace = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert strace.stderr
            if "attached" not in strace.stderr.readline():
                raise EndedError("strace cannot be attached")
            yield told
        finally:
            strace.send_signal(signal.SIGINT)
            strace.communicate()

    def run(self, case: Case) -> tuple[bool, str, list[str]]:
        """Whether it has failed, how it ended, and what was wrong."""
        if case.call in FRESH:
            self.session.stop(0)
            self.start(visits=0)
        session = self.session
        with self.failing(case) as told:
            failed = self.visit()
            self.settle()
        has_failed = "(INJECTED)" in told.read_text()
        if session.has_ended():
            return has_failed, "session ended", self._take_end()
        problems = session.problems[:]
        session.problems.clear()
        if session.open_count:
            problems.append("a flow stays open until all is well again")
        before = len(session.opened)
        if failed_later := self.visit():
            problems.append(f"afterwards: {failed_later}")
        if not session.wait_opened(before + len(VISITS), QUIET_S):
            problems.append(f"afterwards connections pass by unseen: {session.said[-1000:]}")
        problems += self.left()
        if "Traceback" in session.said:
            problems.append(f"a traceback: {session.said[-3000:]}")
        if problems:
            session.stop(0)
            self.start()
        return has_failed, "flow failed" if failed else "unnoticed", problems

    def settle(self) -> None:
        """Until no flow is open, and none opens."""
        self.session.wait_quiet(QUIET_S)
        time.sleep(SETTLED_S)
        self.session.wait_quiet(QUIET_S)

    def left(self) -> list[str]:
        """What the session holds, and did not in the beginning. Looks again for a while: a flow is
        told as closed before all of it has gone."""
        for _ in range(LOOKS):
            self.settle()
            held = self.session.measure()
            more = held.descriptors_beyond(self.held, IDLE_PIPES)
            if not more and held.tasks <= self.held.tasks:
                return []
        open_flows = sorted(self.session.opened - self.session.closed)
        tasks = held.tasks - self.held.tasks
        return [f"left: descriptors {dict(more)}, {tasks} tasks, open flows {open_flows}"]

    def _take_end(self) -> list[str]:
        session = self.session
        session.stop(session.process.returncode)
        problems = session.problems
        lines = session.said.strip().splitlines()
        if (
            not any(line.startswith("error: ") for line in lines)
            or "internal error" in session.said
        ):
            problems.append(f"it ended without saying why: {session.said[-2000:]}")
        self.start()
        return problems


def run_all(injector: Injector, calls: Sequence[str]) -> Iterator[tuple[Case, str, list[str]]]:
    for call in calls:
        for error in CALLS[call]:
            for number in range(1, MAX_CALLS):
                case = Case(call, error, number)
                has_failed, ended, problems = injector.run(case)
                if has_failed:
                    yield case, ended, problems
                    continue
                if problems:
                    yield case, "nothing failed", problems
                break


def run_some(
    injector: Injector, calls: Sequence[str], count: int, rng: random.Random
) -> Iterator[tuple[Case, str, list[str]]]:
    found = 0
    while found < count:
        call = rng.choice(calls)
        case = Case(call, rng.choice(CALLS[call]), rng.choice((1, 2, 3, 5, 8, 13, 21)))
        has_failed, ended, problems = injector.run(case)
        if has_failed or problems:
            found += 1
            yield case, ended, problems


def show(call: str, error: str, outcomes: Counter[str]) -> None:
    told = ", ".join(f"{n} {how}" for how, n in outcomes.items())
    print(f"{call:14} {error:14} {told}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("calls", nargs="*", metavar="CALL", help=", ".join(CALLS))
    parser.add_argument("--sample", type=int, metavar="N", help="only so many, chosen by the seed")
    parser.add_argument("--seed", type=int, default=1, help="(default: 1)")
    options = parser.parse_args()
    calls = options.calls or list(CALLS)
    if unknown := set(calls) - CALLS.keys():
        parser.error(f"no such call: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    matrix: dict[tuple[str, str], Counter[str]] = {}
    wrong = 0
    with ExitStack() as stack:
        files, work = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
            for _ in range(2)
        )
        lab = stack.enter_context(Lab(options.seed))
        site = Site.make(files, random.Random(options.seed))
        for server in start_web_and_echo(lab, site):
            stack.callback(server.kill)
            server.wait_until_ready()
        injector = Injector(lab, site, work)
        stack.callback(lambda: injector.session.process.kill())
        rng = random.Random(options.seed)
        cases = (
            run_some(injector, calls, options.sample, rng)
            if options.sample
            else run_all(injector, calls)
        )
        last = None
        for case, ended, problems in cases:
            if last and (case.call, case.error) != last and not options.sample:
                show(*last, matrix[last])
            last = case.call, case.error
            matrix.setdefault((case.call, case.error), Counter())[ended] += 1
            wrong += bool(problems)
            for problem in problems:
                print(f"PROBLEM: {case}: {problem}", flush=True)
        if last and not options.sample:
            show(*last, matrix[last])
        injector.session.stop(0)
        for problem in injector.session.problems:
            print(f"PROBLEM: in the end: {problem}")
        wrong += bool(injector.session.problems)
    print(f"{sum(each.total() for each in matrix.values())} failed calls, {wrong} with problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
