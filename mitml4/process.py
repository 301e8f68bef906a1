"""The program that has opened a connection."""

from __future__ import annotations

from mitml4.dataclass import dataclass

__all__ = ["Process", "RunningProcess"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of this host, as it was when it opened a connection."""

    pid: int
    uid: int
    """Its effective user."""
    name: str
    """At most 15 bytes (comm, proc(5))."""
    command: tuple[str, ...]
    """Its command line."""
    cgroup: str | None
    """Its path in the hierarchy of cgroups v2, or of systemd where only that has one."""


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process, and when it was started."""

    process: Process
    started_s: float
    """Since the machine was (CLOCK_BOOTTIME), in whole hundredths of a second."""

    @property
    def key(self) -> tuple[int, float]:
        """No other process has the same: its number alone may be used again."""
        return self.process.pid, self.started_s
