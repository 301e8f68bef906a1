"""`python -m bench`: run the figures and print the tables (as root)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from bench import machine
from bench.captures import CaptureFigure, Shelf
from bench.figures import Figure, Values, verify
from bench.install import install
from bench.lab import CONGESTION_CONTROL, Lab
from bench.peers import PEERS, NotMeasuredError, Peer
from bench.readers import READERS, Reader
from bench.report import ALL_FIGURES, Report, Sample, parse_size
from bench.startup import StartupFigure
from mitml4.errors import MachineError, MitmError

RESULTS = Path(__file__).parent / "results"
ALL_PEERS: tuple[Peer | Reader, ...] = (*PEERS, *READERS)

Named = TypeVar("Named", bound=Figure | StartupFigure | CaptureFigure | Peer | Reader)
Stood = TypeVar("Stood", Peer, Reader)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure mitml4 and its peers side by side, in network namespaces.",
    )
    figures = ",".join(figure.name for figure in ALL_FIGURES)
    peers = ",".join(dict.fromkeys(peer.name for peer in ALL_PEERS))
    parser.add_argument("--only", default=figures, metavar="FIGURES", help=f"of {figures}")
    parser.add_argument("--peers", default=peers, metavar="PEERS", help=f"of {peers}")
    parser.add_argument(
        "--size", type=size, default="1G", help="bytes per transfer, or of a capture (default: 1G)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each (default: 3)")
    parser.add_argument(
        "--congestion-control",
        default=CONGESTION_CONTROL,
        metavar="NAME",
        help=f"of every TCP connection (default: {CONGESTION_CONTROL})",
    )
    return parser.parse_args()


def size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pick(known: Iterable[Named], names: str) -> list[Named]:
    """The named items, in the order of the table. Raises MitmError for an unknown name."""
    wanted = names.split(",")
    found = [item for item in known if item.name in wanted]
    if strange := set(wanted) - {item.name for item in found}:
        raise MitmError(
            f"unknown: {', '.join(sorted(strange))}",
            hint="python -m bench --help lists the figures and the peers",
        )
    return found


def run(
    lab: Lab,
    figures: list[Figure | StartupFigure],
    peers: list[Peer],
    rounds: int,
    report: Report,
) -> None:
    """Measure all figures. Within a figure the peers alternate (A B C A B C), because the machine
    drifts."""
    for figure in figures:
        failed: set[str] = set()
        for number in range(1, rounds + 1):
            for peer in peers:
                if peer.name in failed:
                    continue
                print(
                    f"{figure.name}, round {number}: {peer.name} … ",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
                started = time.monotonic()
                try:
                    values = sample(lab, figure, peer, report)
                except (MitmError, subprocess.CalledProcessError) as error:
                    failed.add(peer.name)
                    why = f"{reason(error)} (round {number})"
                    report.not_measured.append((figure.name, peer.name, why))
                    print(f"not measured: {why}", file=sys.stderr)
                    continue
                report.samples.append(Sample(figure.name, peer.name, number, values))
                print(f"{time.monotonic() - started:.1f} s", file=sys.stderr)


def sample(lab: Lab, figure: Figure | StartupFigure, peer: Peer, report: Report) -> Values:
    """Measure one figure of one peer, which is started for it and stopped."""
    if isinstance(figure, StartupFigure):
        return figure.measure(lab, peer)
    with peer.standing(lab) as standing:
        report.legs[peer.name] = verify(lab, standing)
        return figure.measure(lab, standing)


def read(
    shelf: Shelf,
    figures: list[CaptureFigure],
    readers: list[Reader],
    rounds: int,
    report: Report,
) -> None:
    """Measure the figures of captures, with alternating readers as well."""
    for figure in figures:
        failed: set[str] = set()
        for number in range(1, rounds + 1):
            for reader in readers:
                if reader.name in failed or reader.name not in (figure.readers or (reader.name,)):
                    continue
                print(f"{figure.name}, round {number}: {reader.name}", file=sys.stderr)
                try:
                    for row, values in figure.measure(shelf, reader):
                        report.samples.append(Sample(figure.name, row, number, values))
                except NotMeasuredError as error:
                    failed.add(reader.name)
                    report.not_measured.append((figure.name, reader.name, error.message))


def reason(error: MitmError | subprocess.CalledProcessError) -> str:
    """One line for the report: the error message of a peer, or of its client."""
    if isinstance(error, MitmError):
        return error.message
    said = (error.stderr or "").strip().splitlines()
    return f"the client failed: {said[-1] if said else f'exit {error.returncode}'}"


def available(peers: list[Stood], report: Report) -> list[Stood]:
    """The peers that can be started; the others are reported."""
    found = []
    for peer in peers:
        try:
            report.versions[peer.name] = peer.version()
            found.append(peer)
        except NotMeasuredError as error:
            report.not_measured.append(("all", peer.name, error.message))
    return found


def save(report: Report) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(report.to_markdown())
    return path


def measure(given: argparse.Namespace) -> None:
    chosen = pick(ALL_FIGURES, given.only)
    figures = [figure for figure in chosen if not isinstance(figure, CaptureFigure)]
    of_captures = [figure for figure in chosen if isinstance(figure, CaptureFigure)]
    named = pick(ALL_PEERS, given.peers)
    peers = [peer for peer in named if figures and isinstance(peer, Peer)]
    readers = [reader for reader in named if of_captures and isinstance(reader, Reader)]
    if figures and os.geteuid() != 0:
        raise MachineError("network namespaces need root", hint="sudo .venv/bin/python -m bench")
    install([*(peer.name for peer in peers), *(reader.name for reader in readers)])
    settings = {
        "transfer": f"{given.size / 1e6:g} MB",
        "rounds": given.rounds,
        "congestion control": given.congestion_control,
    }
    report = Report(machine.details(), settings)
    standing, reading = available(peers, report), available(readers, report)
    try:
        if figures:
            with Lab.open(given.size, given.congestion_control) as lab:
                run(lab, figures, standing, given.rounds, report)
        if of_captures:
            with Shelf.open(given.size) as shelf:
                read(shelf, of_captures, reading, given.rounds, report)
    finally:
        path = save(report)
    print(report.to_markdown())
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    # SIGTERM must remove the lab, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        measure(options())
    except MitmError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
