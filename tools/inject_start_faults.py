"""Let system calls of a session's start, or of its end, fail, and tell what comes of each.

    python tools/inject_start_faults.py                       each call of each kind of session
    python tools/inject_start_faults.py openat socket         only these
    python tools/inject_start_faults.py --kinds run,proxy --phases end,steps
    python tools/inject_start_faults.py --sample 20 --seed 1
    python tools/inject_start_faults.py --count               how many calls there are

strace lets the N-th call of a kind fail in each process and thread that the session has or starts.
Then it has to start all the same, and intercept; or to end with an error of one line, a hint and
the exit code that goes with it. Either way nothing of it is left: rules, routes, interfaces,
sysctls, processes, mounts, control groups and temporary files are as they were before.

In the phase `steps` no call fails, but the session is cancelled, or gets SIGINT or SIGTERM, between
two steps of its tasks: at each, from the start to the end.

docs/endurance.md has what a run has shown.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from soaking.lab import Lab
from soaking.servers import Site, start_web_and_echo
from soaking.visits import visit_all

from mitml4.lab.network import LAN
from mitml4.lab.snapshot import difference, take_snapshot

_TOOLS: Final = Path(__file__).parent
_FULL: Final = ("EMFILE", "ENOMEM")

CALLS: Final[dict[str, Sequence[str]]] = {
    "openat": _FULL,
    "read": ("EIO",),
    "write": ("ENOSPC", "EIO"),
    "fsync": ("EIO",),
    "ftruncate": ("EIO",),
    "rename,renameat,renameat2": ("ENOSPC",),
    "link,linkat": ("ENOSPC",),
    "mkdir,mkdirat": ("ENOSPC",),
    "chmod,fchmod,fchmodat": ("EPERM",),
    "chown,fchown,fchownat": ("EPERM",),
    "socket": ("EMFILE", "ENOBUFS"),
    "socketpair": _FULL,
    "bind": ("EADDRINUSE", "ENOMEM"),
    "listen": ("EADDRINUSE",),
    "connect": ("ENOMEM",),
    "accept4": ("EMFILE",),
    "setsockopt": ("ENOMEM",),
    "getsockopt": ("ENOBUFS",),
    "getsockname": ("ENOBUFS",),
    "sendto": ("ENOBUFS",),
    "sendmsg": ("ENOBUFS",),
    "recvfrom": ("ENOBUFS", "EINTR"),
    "recvmsg": ("ENOMEM", "EINTR"),
    "pipe2": _FULL,
    "dup,dup2,dup3": ("EMFILE",),
    "fcntl": ("EMFILE",),
    "ioctl": ("ENOMEM",),
    "epoll_create1": _FULL,
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "eventfd2": _FULL,
    "timerfd_create": _FULL,
    "inotify_init1": _FULL,
    "inotify_add_watch": ("ENOSPC",),
    "memfd_create": _FULL,
    "pidfd_open": _FULL,
    "clone,clone3": ("EAGAIN", "ENOMEM"),
    "vfork,fork": ("EAGAIN",),
    "execve": ("ENOMEM",),
    "wait4": ("EINTR",),
    "unshare": ("ENOSPC", "EPERM"),
    "setns": ("EPERM", "ENOMEM"),
    "mount": ("ENOMEM", "EPERM"),
    "umount2": ("EBUSY",),
    "pivot_root": ("EBUSY",),
    "prctl": ("EPERM",),
    "capset": ("EPERM",),
    "seccomp": ("ENOMEM",),
    "setresuid,setresgid,setgroups,setuid,setgid": ("EAGAIN",),
    "setsid": ("EPERM",),
    "prlimit64": ("EPERM",),
    "bpf": ("ENOMEM",),
}
"""The calls of a start and an end, and how they may fail. Left out is memory that cannot be mapped,
and looking at files (stat, readlink): Python takes what it cannot look at as not there."""

_UNREAL: Final = re.compile(
    r'sendto\(\d+, "\\0", 1, 0, NULL, 0\b|recvfrom.*, 65536, 0, NULL, NULL'
    r'|write\(\d+, "\\\d+", 1\b'
    r"|EPOLL_CTL_(MOD|DEL)|F_[GS]ET(FL|FD)|FIONBIO|prlimit64\(0, \w+, NULL"
)
"""What no kernel does: refuse the byte by which trio is woken, the flags of a descriptor,
epoll_ctl where it adds nothing, or to tell a limit."""

LIMIT_S: Final = 30.0
"""Of a start, or of an end."""
GONE_S: Final = 5.0
DETACH_S: Final = 5.0
MAX_CALLS: Final = 400
MARK: Final = "MITML4_FAULTS"
DURATION: Final = "300ms"
"""Of a session that is interrupted at one of its steps."""
_CODES: Final = (1, 3)
_INTERRUPTED: Final = (0, 130, 143, -signal.SIGTERM)
_COMMAND: Final = ("cat", "/dev/null")
_OTHERS_SAY: Final = re.compile(r"^(?:cat|sh): ", re.MULTILINE)
"""The command that `run` runs has failed by itself."""


STEPS: Final = "steps"
PHASES: Final = ("start", "end", STEPS)
ACTS: Final = ("cancel", "SIGINT", "SIGTERM")
"""What comes between two steps of its tasks, from the first of the start to the last of the end."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of session."""

    options: Sequence[str]
    in_router: bool = False
    """Whether the client's connections pass through it."""
    phases: Sequence[str] = PHASES
    """Without an end where it ends by itself."""


def _outputs(place: Path) -> list[str]:
    return [
        *("-o", f"{place}/events.jsonl", "--har", f"{place}/a.har", "-w", f"{place}/a.pcapng"),
        *("--pcap-plain", f"{place}/plain.pcapng", "--keylog", f"{place}/keys"),
    ]


KINDS: Final[dict[str, Kind]] = {
    "intercept": Kind(["intercept", "--iface", LAN, "--json"], in_router=True),
    "workers": Kind(["intercept", "--iface", LAN, "--json", "--workers", "2"], in_router=True),
    "proxy": Kind(["proxy", "--listen", "127.0.0.1:8080", "--json"]),
    "run": Kind(["run"], phases=["start", STEPS]),
}


@dataclass(frozen=True, slots=True)
class Case:
    kind: str
    phase: str
    call: str
    error: str
    number: int
    """Which one fails, counted from 1 in each process and thread."""

    def __str__(self) -> str:
        return f"{self.kind} {self.phase} {self.call} {self.number} {self.error}"


class Machine:
    """What a session may change."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def snapshot(self) -> str:
        """The router's network, and all of the host that has our name; others change more."""
        parts = sorted(self._lab.router.call(take_snapshot).splitlines())
        parts += sorted(filter(_is_ours, Path("/proc/self/mounts").read_text().splitlines()))
        for directory in ("/run", "/sys/fs/cgroup"):
            for root, names, _files in os.walk(directory):
                parts += filter(_is_ours, sorted(f"{root}/{name}" for name in names))
        return "\n".join(parts)


def _is_ours(line: str) -> bool:
    return "mitml4" in line


def marked(mark: str) -> list[int]:
    """The living processes that have inherited the mark."""
    found = []
    wanted = f"{MARK}={mark}".encode()
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if wanted in (each / "environ").read_bytes().split(b"\0"):
                found.append(int(each.name))
    return found


class Try:
    """One session, from its start to its end."""

    def __init__(self, machine: Machine, lab: Lab, site: Site, place: Path, case: Case) -> None:
        self.problems: list[str] = []
        self.place = place
        self._machine = machine
        self._lab = lab
        self._case = case
        self._kind = KINDS[case.kind]
        self._is_run = case.kind == "run"
        self._temporary = place / "tmp"
        self._temporary.mkdir()
        self._ca = place / "ca"
        self._before = machine.snapshot()
        self._mark = place.name
        self._files = [(place / name).open("w+b") for name in ("stdout", "stderr")]
        options = [*self._kind.options, *_outputs(place)]
        if case.phase == STEPS and not self._is_run:
            options += ["--duration", DURATION]
        act = case.error if case.phase == STEPS else ""
        interrupted = [str(place / "steps"), str(case.number), act]
        if not self._is_run:
            options += ["--ca-dir", str(self._ca), "--upstream-ca", str(site.authority.root)]
        self.process = lab.router.popen(
            [
                *(sys.executable, "-m", "soaking.halted", *interrupted, *options),
                *(_COMMAND if self._is_run else ()),
            ],
            cwd=_TOOLS,
            stdin=subprocess.DEVNULL,
            stdout=self._files[0],
            stderr=self._files[1],
            start_new_session=True,
            env={**os.environ, MARK: self._mark, "TMPDIR": str(self._temporary)},
        )
        try:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        except BaseException:  # as by SIGTERM
            self.close()
            raise
        self._site = site

    @property
    def said(self) -> str:
        return (self.place / "stderr").read_text(errors="replace")

    @property
    def has_started(self) -> bool:
        """Also where an output could not be written, and it goes on with the other."""
        outputs = [self.place / name for name in ("stdout", "events.jsonl")]
        return any(b'"session.start"' in each.read_bytes() for each in outputs if each.exists())

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @contextmanager
    def failing(self, case: Case | None) -> Iterator[None]:
        """`told` has the calls."""
        rule = ["-e", f"trace={','.join(CALLS)}"]
        if case:
            rule = ["-e", f"inject={case.call}:error={case.error}:when={case.number}"]
        argv = ["strace", "-f", "-o", str(self.told), "-p", str(self.process.pid), *rule]
        strace = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert strace.stderr
            if "attached" not in (line := strace.stderr.readline()):
                raise RuntimeError(f"strace cannot be attached: {line}")
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            try:
                strace.communicate(timeout=DETACH_S)
            except subprocess.TimeoutExpired:  # of a process that has ended meanwhile
                strace.kill()
                strace.communicate()

    @property
    def told(self) -> Path:
        return self.place / "strace"

    def start(self) -> None:
        """Until it has started or ended."""
        os.kill(self.process.pid, signal.SIGCONT)
        self._wait(lambda: self.has_started or self.has_ended, "it neither starts nor ends")

    def _wait(self, condition: object, problem: str) -> None:
        assert callable(condition)
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                self.problems.append(f"{problem}: {self.said[-2000:]}{self._injected()}")
                self.process.kill()
                self.process.wait()
                return
            time.sleep(0.02)

    def visit(self) -> None:
        """What passes through it has to be seen."""
        if not self._kind.in_router or self.has_ended:
            return
        ca = self._ca / "mitml4-ca.pem"
        roots = self.place / "roots.pem"
        roots.write_bytes(ca.read_bytes() + self._site.authority.root.read_bytes())
        if failed := self._lab.client.call(lambda: visit_all(roots)):
            self.problems.append(f"it has started, and yet: {failed}: {self.said[-2000:]}")

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        with suppress(ProcessLookupError):
            if not self.has_ended and not self._is_run:
                self.process.send_signal(signal.SIGTERM)
        self.wait_end()

    def wait_end(self) -> None:
        self._wait(lambda: self.has_ended, "it does not end")

    @property
    def steps(self) -> str:
        """How many steps its tasks took; 0: it came to the one at which it was interrupted; empty:
        it did not."""
        path = self.place / "steps"
        return path.read_text() if path.exists() else ""

    def check(self) -> str:
        """How it ended."""
        self.process.wait()
        code = self.process.returncode
        said = self.said
        if self._case.phase == STEPS:
            if "Traceback" in said or "internal error" in said or code not in _INTERRUPTED:
                self.problems.append(f"interrupted, it ended with {code}: {said[-3000:]}")
            self._check_left()
            return f"ended with {code}" if code else "went well"
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        hints = [line for line in said.splitlines() if line.startswith("hint: ")]
        if _UNREAL.search(self._injected()):
            self.problems.clear()
            return "unreal"
        if any(word in said for word in ("Traceback", "internal error", "Exception ignored")):
            self.problems.append(f"an internal error: {said[-3000:]}{self._injected()}")
        elif code == 0:
            if errors:
                self.problems.append(f"it ended well, and yet: {said}")
        elif self._is_run and (code in (126, 127) or _OTHERS_SAY.search(said)):
            pass
        elif code not in _CODES:
            self.problems.append(f"it ended with {code}: {said[-2000:]}")
        elif "write(2, " in self._injected():
            pass  # it could not say why
        elif not errors or len(errors) > len(hints):
            self.problems.append(
                f"no error of one line, or no hint: {said[-2000:]}{self._injected()}"
            )
        events = self._events()
        lasts = code == 0 or (events and "write(" not in self._injected())
        if lasts and not self._is_run and events[-1:] != ["session.stop"]:
            self.problems.append(f"the last event is {events[-1:]}: {said[-1000:]}")
        if self._kind.in_router and code == 0:
            seen = events.count("flow.open")
            if seen != events.count("flow.close") or (seen < 3 and not self.problems):
                self.problems.append(f"{seen} flows of 3: {said[-1000:]}")
        self._check_left()
        return f"ended with {code}" if code else "went well"

    def _injected(self) -> str:
        """What strace has told of the calls that failed."""
        begun: dict[str, str] = {}
        failed = []
        for line in self.told_calls.splitlines():
            pid, _, call = line.partition(" ")
            if call.endswith("<unfinished ...>"):
                begun[pid] = call
            elif call.endswith("(INJECTED)"):
                failed.append(f"{pid} {begun.get(pid, '') if '<...' in call else ''}{call}")
        return "\n".join(failed)

    @property
    def told_calls(self) -> str:
        return self.told.read_text(errors="replace") if self.told.exists() else ""

    @property
    def has_failed(self) -> bool:
        if self._case.phase == STEPS:
            return self.steps == "0"
        return bool(self._injected())

    def _events(self) -> list[str]:
        try:
            lines = (self.place / "stdout").read_bytes().splitlines()
            return [json.loads(line)["type"] for line in lines]
        except ValueError:
            self.problems.append("standard output is cut within a line")
            return []

    def _check_left(self) -> None:
        deadline = time.monotonic() + GONE_S
        while True:
            left = difference(self._before, self._machine.snapshot())
            processes = marked(self._mark)
            files = [str(path) for path in self._temporary.rglob("*")]
            if not (left or processes or files):
                return
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        names = []
        for pid in processes:
            with suppress(OSError):
                names.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:100])
                os.kill(pid, signal.SIGKILL)
        self.problems.append(f"left: {left} {names} {files}: {self.said[-1000:]}")

    def close(self) -> None:
        if not self.has_ended:
            self.process.kill()
            self.process.wait()
        for file in self._files:
            _close(file)


def _close(file: IO[bytes]) -> None:
    file.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    has_failed: bool
    """Whether it has come to what was to fail."""
    ended: str
    problems: Sequence[str]
    calls: str
    """What strace has told."""
    steps: int


class Injector:
    def __init__(self, lab: Lab, site: Site, directory: Path) -> None:
        self._lab = lab
        self._site = site
        self._machine = Machine(lab)
        self._directory = directory
        self._count = 0

    @contextmanager
    def session(self, case: Case) -> Iterator[Try]:
        self._count += 1
        place = self._directory / f"{os.getpid()}-{self._count}"
        place.mkdir()
        tried = Try(self._machine, self._lab, self._site, place, case)
        try:
            yield tried
        finally:
            tried.close()

    def run(self, case: Case, *, counting: bool = False) -> Outcome:
        injected = None if counting else case
        with self.session(case) as tried:
            if case.phase == STEPS:
                tried.start()
                tried.wait_end()
            elif case.phase == "start":
                with tried.failing(injected):
                    tried.start()
                tried.visit()
                tried.stop()
            else:
                tried.start()
                tried.visit()
                with tried.failing(injected):
                    tried.stop()
            ended = tried.check()
            has_failed = tried.has_failed and ended != "unreal"
            return Outcome(
                has_failed, ended, tried.problems, tried.told_calls, int(tried.steps or 0)
            )

    def count_steps(self, kind: str) -> int:
        """How many the tasks of a whole session take."""
        outcome = self.run(Case(kind, STEPS, "step", ACTS[0], 0))
        if outcome.problems or not outcome.steps:
            raise RuntimeError(f"nothing was wrong, and yet: {kind}: {outcome}")
        return outcome.steps

    def most(self, kind: str, phase: str) -> Counter[str]:
        """How often a process or thread makes each call at most, if none fails."""
        outcome = self.run(Case(kind, phase, "", "", 0), counting=True)
        if outcome.problems or outcome.ended != "went well":
            raise RuntimeError(f"nothing was wrong, and yet: {kind}: {outcome}")
        each: Counter[tuple[str, str]] = Counter()
        for line in outcome.calls.splitlines():
            if match := re.match(r"(\d+) +(\w+)\(", line):
                each[match[1], match[2]] += 1
        most: Counter[str] = Counter()
        for call in CALLS:
            names = call.split(",")
            threads: Counter[str] = Counter()
            for (pid, name), count in each.items():
                threads[pid] += count if name in names else 0
            most[call] = max(threads.values(), default=0)
        return most


def all_cases(
    injector: Injector,
    kinds: Sequence[str],
    phases: Sequence[str],
    calls: Sequence[str],
    at_most: int,
) -> Iterator[Case]:
    for kind in kinds:
        for phase in phases:
            if phase not in KINDS[kind].phases:
                continue
            if phase == STEPS:
                count = injector.count_steps(kind)
                for act in ACTS:
                    for number in _spread(count, at_most):
                        yield Case(kind, STEPS, "step", act, number)
                continue
            most = injector.most(kind, phase)
            for call in calls:
                for error in CALLS[call]:
                    for number in _spread(min(most[call], MAX_CALLS), at_most):
                        yield Case(kind, phase, call, error, number)


def _spread(count: int, at_most: int) -> Iterator[int]:
    """Numbers from 1 to the count, evenly spread."""
    step = max(1, (count - 1) / max(1, at_most - 1))
    yield from sorted({1 + round(index * step) for index in range(min(count, at_most))})


def show(matrix: Mapping[tuple[str, ...], Counter[str]]) -> None:
    for key, outcomes in matrix.items():
        print(*key, ", ".join(f"{n} {how}" for how, n in sorted(outcomes.items())), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("calls", nargs="*", metavar="CALL", help=", ".join(CALLS))
    parser.add_argument("--kinds", default=",".join(KINDS), help="(default: %(default)s)")
    parser.add_argument("--phases", default=",".join(PHASES), help="(default: %(default)s)")
    parser.add_argument(
        "--at-most",
        type=int,
        default=MAX_CALLS,
        metavar="N",
        help="of each call and error, evenly spread (default: %(default)s)",
    )
    parser.add_argument("--sample", type=int, metavar="N", help="only so many, chosen by the seed")
    parser.add_argument("--seed", type=int, default=1, help="(default: 1)")
    parser.add_argument("--count", action="store_true", help="count the calls, and let none fail")
    options = parser.parse_args()
    calls = options.calls or list(CALLS)
    if unknown := set(calls) - CALLS.keys():
        parser.error(f"no such call: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kinds, phases = options.kinds.split(","), options.phases.split(",")
    done = wrong = 0
    with ExitStack() as stack:
        files, work = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
            for _ in range(2)
        )
        work.chmod(0o755)
        lab = stack.enter_context(Lab(options.seed))
        site = Site.make(files, random.Random(options.seed))
        for server in start_web_and_echo(lab, site):
            stack.callback(server.kill)
            server.wait_until_ready()
        injector = Injector(lab, site, work)
        if options.count:
            for kind in kinds:
                print(kind, STEPS, injector.count_steps(kind), flush=True)
                for phase in set(KINDS[kind].phases) - {STEPS}:
                    print(kind, phase, dict(injector.most(kind, phase).most_common()), flush=True)
            return 0
        cases = list(all_cases(injector, kinds, phases, calls, options.at_most))
        if options.sample is not None:
            cases = random.Random(options.seed).sample(cases, options.sample)
        print(f"{len(cases)} calls", flush=True)
        matrix: dict[tuple[str, ...], Counter[str]] = {}
        last: tuple[str, ...] = ()
        for case in cases:
            outcome = injector.run(case)
            key = case.kind, case.phase, case.call, case.error
            if key != last and last:
                show({last: matrix[last]})
            last = key
            ended = outcome.ended if outcome.has_failed else "nothing failed"
            matrix.setdefault(key, Counter())[ended] += 1
            done += outcome.has_failed
            wrong += bool(outcome.problems)
            for problem in outcome.problems:
                print(f"PROBLEM: {case}: {problem}", flush=True)
        if last:
            show({last: matrix[last]})
    print(f"{done} failed calls, {wrong} with problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
