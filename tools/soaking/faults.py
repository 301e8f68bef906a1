"""What is done to a session under load, each for a few seconds."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mitml4.lab.network import LAN, WAN

from .isolated_server import IsolatedServer
from .lab import CALM, Lab, Quality
from .session import Session

__all__ = ["FAULTS", "Fault", "Victim"]

_DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Victim:
    """What faults may touch."""

    lab: Lab
    session: Session
    servers: Sequence[IsolatedServer]
    disk: Path
    """The directory of its outputs."""
    rng: random.Random
    over: threading.Event
    """Set when the fault is to end."""


Fault = Callable[[Victim], AbstractContextManager[None]]


def _link_of(choose: Callable[[random.Random], Quality]) -> Fault:
    @contextmanager
    def fault(victim: Victim) -> Iterator[None]:
        victim.lab.set_quality(choose(victim.rng))
        yield
        victim.lab.set_quality(CALM)

    return fault


def _repeated(act: Callable[[Victim], None], max_wait_s: float) -> Fault:
    """Act, wait up to `max_wait_s`, act again, in a thread, until the fault is over."""

    @contextmanager
    def fault(victim: Victim) -> Iterator[None]:
        failures: list[BaseException] = []

        def repeat() -> None:
            try:
                while not victim.over.is_set():
                    act(victim)
                    victim.over.wait(victim.rng.random() * max_wait_s)
            except BaseException as error:  # raised again below
                failures.append(error)

        thread = threading.Thread(target=repeat, name="fault")
        thread.start()
        yield
        thread.join()
        if failures:
            raise failures[0]

    return fault


@contextmanager
def _narrow_path(victim: Victim) -> Iterator[None]:
    victim.lab.set_mtu(1280)  # the smallest of IPv6 (RFC 8200 §5)
    yield
    victim.lab.set_mtu(1500)


def _flap(victim: Victim) -> None:
    interface = victim.rng.choice((LAN, WAN))
    victim.lab.set_link(interface, up=False)
    victim.over.wait(0.05 + victim.rng.random())
    victim.lab.set_link(interface, up=True)


def _flush_rules(victim: Victim) -> None:
    """As others do, who know nothing of ours. The kernel keeps a table that has an owner."""
    router = victim.lab.router
    router.run("nft", "flush", "ruleset")
    for line in router.run("nft", "list", "tables").stdout.splitlines():
        router.run("nft", "delete", *line.split(), check=False)
    router.run("ip", "route", "flush", "cache")


def _kill_server(victim: Victim) -> None:
    server = victim.rng.choice(victim.servers)
    server.kill()
    victim.over.wait(victim.rng.random())
    server.start()


def _freeze_server(victim: Victim) -> None:
    server = victim.rng.choice(victim.servers)
    server.signal(signal.SIGSTOP)
    victim.over.wait(2 * victim.rng.random())
    server.signal(signal.SIGCONT)


def _freeze_session(victim: Victim) -> None:
    """As a machine that was suspended, or had no time."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in victim.session.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if number is signal.SIGSTOP:
            time.sleep(victim.rng.random())


def _kill_worker(victim: Victim) -> None:
    if workers := victim.session.workers():
        with suppress(ProcessLookupError):
            os.kill(victim.rng.choice(workers), signal.SIGKILL)
    victim.over.wait(2)


@contextmanager
def _jump(victim: Victim) -> Iterator[None]:
    """Back, or forward, beyond the life of every certificate; and as it was again."""
    victim.session.set_clock(victim.rng.choice((-400 * _DAY_S, -3600.0, 3600.0, 400 * _DAY_S)))
    yield
    victim.session.set_clock(0.0)


@contextmanager
def _few_descriptors(victim: Victim) -> Iterator[None]:
    victim.session.limit_descriptors(more=victim.rng.choice((0, 3, 20)))
    yield
    victim.session.limit_descriptors(more=None)


@contextmanager
def _full_disk(victim: Victim) -> Iterator[None]:
    filler = victim.disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass
    yield
    filler.unlink()


def _lossy(rng: random.Random) -> Quality:
    return Quality(loss=rng.choice((0.01, 0.05, 0.15)))


def _late(rng: random.Random) -> Quality:
    return Quality(delay_s=rng.choice((0.005, 0.05, 0.2)))


def _reordered(rng: random.Random) -> Quality:
    return Quality(delay_s=0.005, jitter_s=rng.choice((0.005, 0.05)), loss=0.01)


FAULTS: Final[dict[str, Fault]] = {
    "loss": _link_of(_lossy),
    "delay": _link_of(_late),
    "reordering": _link_of(_reordered),
    "narrow path": _narrow_path,
    "flaps": _repeated(_flap, 2),
    "flushes": _repeated(_flush_rules, 1),
    "killed servers": _repeated(_kill_server, 1),
    "frozen servers": _repeated(_freeze_server, 1),
    "frozen session": _repeated(_freeze_session, 2),
    "clock": _jump,
    "descriptors": _few_descriptors,
    "full disk": _full_disk,
    "killed workers": _repeated(_kill_worker, 2),
}
