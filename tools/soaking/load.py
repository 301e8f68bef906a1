"""Clients that run beside each other, and some of which vanish."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from mitml4.lab.network import SERVER_V4
from mitml4.net.netns import NetNamespace

from .clients import Client, Kind
from .servers import Site

__all__ = ["Load"]

_TOOLS: Final = Path(__file__).parents[1]
_HANGS_AFTER_S: Final = 90.0
_VANISHING: Final = 0.2
"""The share of clients that are killed."""


class Load:
    """The clients of a session."""

    def __init__(
        self,
        namespace: NetNamespace,
        site: Site,
        roots: Path,
        kinds: Mapping[str, Kind],
        *,
        seed: int,
        threads: int,
        pause_s: float,
    ) -> None:
        self.problems: list[str] = []
        self.ended: Counter[str] = Counter()
        """How: well, cut, killed."""
        self._namespace = namespace
        self._site = site
        self._roots = roots
        self._kinds = kinds
        self._seed = seed
        self._threads = threads
        self._pause_s = pause_s
        self._round = 0

    def run(self, over: threading.Event) -> None:
        """Clients of all kinds, until it is over; those that run then are waited for."""
        self._round += 1
        with ThreadPoolExecutor(self._threads + 1) as pool:
            seeds = [self._seed + 1000 * self._round + each for each in range(self._threads + 1)]
            done = [pool.submit(self._repeat, random.Random(seed), over) for seed in seeds[1:]]
            done.append(pool.submit(self._keep_talking, random.Random(seeds[0]), over))
        for each in done:
            each.result()

    def check(self) -> None:
        """One client of each kind, which has to get all."""
        self._round += 1
        rng = random.Random(self._seed + 1000 * self._round)
        seeds = [(name, random.Random(rng.random())) for name in self._kinds]
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(lambda each: self._run(*each, vanish_s=None, is_calm=True), seeds))

    def _repeat(self, rng: random.Random, over: threading.Event) -> None:
        names = list(self._kinds)
        while not over.wait(self._pause_s * 2 * rng.random()):
            vanish_s = rng.random() if rng.random() < _VANISHING else None
            self._run(rng.choice(names), rng, vanish_s=vanish_s, is_calm=False)

    def _run(self, name: str, rng: random.Random, *, vanish_s: float | None, is_calm: bool) -> None:
        client = self._kinds[name](self._site, self._roots, rng)
        try:
            self._run_client(name, client, vanish_s, is_calm)
        finally:
            client.remove()

    def _run_client(self, name: str, client: Client, vanish_s: float | None, is_calm: bool) -> None:
        process = self._namespace.popen(
            client.argv,
            cwd=client.cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            got, said = process.communicate(client.given, vanish_s or _HANGS_AFTER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            if process.stdin:
                process.stdin.close()
            got, said = process.communicate()
            if vanish_s is None:
                self.problems.append(f"{name}: it hangs")
        is_well = process.returncode == 0
        self.ended["well" if is_well else "killed" if process.returncode == -9 else "cut"] += 1
        if problem := client.problem(got, is_well=is_well, is_calm=is_calm):
            ended = f"ended with {process.returncode} {said.decode(errors='replace').strip()!r}"
            self.problems.append(f"{name}: {problem}; {ended}")

    def _keep_talking(self, rng: random.Random, over: threading.Event) -> None:
        """One that goes on until it is killed; then another one."""
        while not over.is_set():
            argv = [
                sys.executable,
                "-m",
                "soaking.talk",
                "on",
                SERVER_V4,
                str(rng.randrange(1 << 30)),
            ]
            process = self._namespace.popen(argv, cwd=_TOOLS, stderr=subprocess.PIPE)
            over.wait(5 + 15 * rng.random())
            process.kill()
            _, said = process.communicate()
            if process.returncode != -9:
                self.problems.append(f"the talker ended: {said.decode(errors='replace')[-500:]}")
