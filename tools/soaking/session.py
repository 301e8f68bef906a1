"""`mitml4 intercept` in the router, and what it has said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

from mitml4.lab.network import LAN
from mitml4.lab.snapshot import difference, take_snapshot

from .lab import Lab
from .launch import Shared
from .measure import Held, ask, measure
from .servers import Site

__all__ = ["EndedError", "Session"]

_TOOLS: Final = Path(__file__).parents[1]
_START_TIMEOUT_S: Final = 60.0
_END_TIMEOUT_S: Final = 60.0


class EndedError(Exception):
    """The session has ended early, or does not start."""


class Session:
    """Start it, put it under load, `stop` it; `problems` has what was wrong."""

    def __init__(
        self,
        lab: Lab,
        site: Site,
        directory: Path,
        options: Sequence[str],
        limits: Sequence[str],
        tolerated: Collection[str],
    ) -> None:
        """`limits`: a command that starts another one; `tolerated`: reasons of internal errors that
        what is done to it may have. Raises EndedError."""
        self.problems: list[str] = []
        self.opened: set[int] = set()
        self.closed: set[int] = set()
        self.errors: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.roots = directory / "roots.pem"
        """What clients trust: the session's authority, and the servers' own."""
        self._lab = lab
        self._tolerated = tolerated
        self._before = self._take_snapshot()
        Shared.create(directory / "shared")
        self._shared = Shared(directory / "shared")
        self._stderr = directory / "stderr"
        command = [*limits, sys.executable, "-m", "soaking.launch", str(directory / "shared")]
        scope = ["intercept", "--iface", LAN, "--json", "--ca-dir", str(directory / "ca")]
        with self._stderr.open("wb") as said:
            self.process = lab.router.popen(
                [*command, *scope, "--upstream-ca", str(site.authority.root), *options],
                cwd=_TOOLS,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
        self._changed = threading.Condition()
        self._kinds: list[str] = []
        self._has_ended = False
        self._reader = threading.Thread(target=self._read, name="events", daemon=True)
        self._reader.start()
        try:
            self._wait_started()
            ca = directory / "ca" / "mitml4-ca.pem"
            self.roots.write_bytes(ca.read_bytes() + site.authority.root.read_bytes())
            self._rules = self._take_rules()
        except BaseException:
            self.process.kill()
            raise

    def _wait_started(self) -> None:
        if not self._wait(lambda: "session.start" in self._kinds, _START_TIMEOUT_S):
            raise EndedError(f"it does not start: {self.said}")

    # --- events

    def _read(self) -> None:
        for line in self.process.stdout:  # type: ignore[union-attr]
            event = json.loads(line)
            with self._changed:
                self._take(event)
                self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _take(self, event: dict[str, Any]) -> None:
        number = event.get("flow", 0)
        if number in self.closed:
            self.problems.append(f"an event of a flow that has closed: {event}")
        match event["type"]:
            case "flow.open":
                self.opened.add(number)
            case "flow.close":
                self.closed.add(number)
                self.reasons[event["reason"]] += 1
                if number not in self.opened:
                    self.problems.append(f"a flow that has closed, and was never opened: {event}")
            case "flow.error":
                self.errors[event["kind"]] += 1
                if event["kind"] == "internal" and event["reason"] not in self._tolerated:
                    self.problems.append(f"an internal error: {event}")
            case "session.start" | "session.stop" as kind:
                self._kinds.append(kind)

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._has_ended, timeout_s)
            return condition()

    def has_ended(self) -> bool:
        """Whether it has closed its output. Waits for its process then."""
        if self._has_ended:
            self.process.wait(_END_TIMEOUT_S)
        return self._has_ended

    @property
    def open_count(self) -> int:
        return len(self.opened) - len(self.closed)

    def wait_quiet(self, timeout_s: float) -> bool:
        """Until no flow is open."""
        return self._wait(lambda: not self.open_count, timeout_s)

    def wait_opened(self, count: int, timeout_s: float) -> bool:
        """Until so many flows have been opened in all."""
        return self._wait(lambda: len(self.opened) >= count, timeout_s)

    @property
    def said(self) -> str:
        """On standard error."""
        return self._stderr.read_text(errors="replace")

    # --- what happens to it

    def set_clock(self, ahead_s: float) -> None:
        """The clock of the calendar, of all its processes."""
        self._shared.set_clock(ahead_s)

    def limit_descriptors(self, *, more: int | None) -> None:
        """So many more than it has; None: as many as it may have."""
        pid = self.process.pid
        limit = 0 if more is None else len(os.listdir(f"/proc/{pid}/fd")) + more
        ask(pid, self._shared, limit)

    def processes(self) -> list[int]:
        """All that run in the router; the one that runs the session comes first."""
        place = os.readlink(f"/proc/{self.process.pid}/ns/net")
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(each / "ns/net") == place and (each / "cmdline").read_bytes():
                    found.append(int(each.name))
            except OSError:  # it has ended
                continue
        return sorted(found, key=lambda pid: pid != self.process.pid)

    def workers(self) -> list[int]:
        names = {pid: Path(f"/proc/{pid}/cmdline") for pid in self.processes()}
        return [
            pid for pid, name in names.items() if name.read_bytes().startswith(b"mitml4: worker")
        ]

    # --- what it holds, and how it ends

    def measure(self) -> Held:
        if self.process.poll() is not None:
            raise EndedError(f"it has ended with {self.process.returncode}: {self.said}")
        return measure(self.processes(), self._shared)

    def _take_rules(self) -> str:
        listing = ("nft", "--stateless", "--terse", "list", "ruleset")
        return self._lab.router.run(*listing).stdout

    def _take_snapshot(self) -> str:
        """Sorted: an interface that was down has its routes behind those of others."""
        return "\n".join(sorted(self._lab.router.call(take_snapshot).splitlines()))

    def check_rules(self) -> None:
        if (rules := self._take_rules()) != self._rules:
            self.problems.append(f"other rules:\n{difference(self._rules, rules)}")

    def stop(self, expected_code: int) -> None:
        """End it, and add what was wrong with its end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.problems.append("it does not end")
            code = self.process.wait()
        self._reader.join(_END_TIMEOUT_S)
        if code != expected_code:
            self.problems.append(f"it ended with {code}, and not {expected_code}: {self.said}")
        if "Traceback" in self.said:
            self.problems.append(f"a traceback: {self.said}")
        if missing := self.opened - self.closed:
            self.problems.append(f"flows without flow.close: {sorted(missing)[:10]}")
        if self._kinds != ["session.start", "session.stop"]:
            self.problems.append(f"of the session it told {self._kinds}")
        if left := difference(self._before, self._take_snapshot()):
            self.problems.append(f"it has left:\n{left}")
