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
import os
import random
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from soaking.failing_calls import CALLS
from soaking.interrupted import ACTS, KINDS, PHASES, STEPS, Case, Machine, Try
from soaking.lab import Lab
from soaking.servers import Site, start_web_and_echo

_MAX_CALLS: Final = 400


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
                    for number in _spread(min(most[call], _MAX_CALLS), at_most):
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
        default=_MAX_CALLS,
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
