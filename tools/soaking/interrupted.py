"""One session with a call that fails, or with an interruption between two of its steps: how it
ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from mitml4.lab.network import LAN
from mitml4.lab.snapshot import difference, take_snapshot

from .failing_calls import CALLS, UNREAL
from .lab import Lab
from .servers import Site
from .visits import visit_all

__all__ = ["ACTS", "KINDS", "PHASES", "STEPS", "Case", "Machine", "Try"]

_TOOLS: Final = Path(__file__).parents[1]
_LIMIT_S: Final = 30.0
"""Of a start, or of an end."""
_GONE_S: Final = 5.0
_DETACH_S: Final = 5.0
_MARK: Final = "MITML4_FAULTS"
_DURATION: Final = "300ms"
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


def _marked(mark: str) -> list[int]:
    """The living processes that have inherited the mark."""
    found = []
    wanted = f"{_MARK}={mark}".encode()
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
            options += ["--duration", _DURATION]
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
            env={**os.environ, _MARK: self._mark, "TMPDIR": str(self._temporary)},
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
                strace.communicate(timeout=_DETACH_S)
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
        deadline = time.monotonic() + _LIMIT_S
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
        if UNREAL.search(self._injected()):
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
        deadline = time.monotonic() + _GONE_S
        while True:
            left = difference(self._before, self._machine.snapshot())
            processes = _marked(self._mark)
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
