"""Each wait of each sink is cancelled once: it ends, its file is sound up to a whole record, and
neither a thread nor a descriptor of it is left."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

from mitml4.address import Address
from mitml4.capture.files.reader import read_packets
from mitml4.protocols.conversation import Direction
from mitml4.sinks import pcapng
from mitml4.sinks.background import Background
from mitml4.sinks.har import HttpArchive
from mitml4.sinks.jsonl import JsonLines
from mitml4.sinks.lines import FlowLines
from mitml4.sinks.pcapng import PacketFile
from mitml4.sinks.plain import PlainFormat, PlainPackets
from mitml4.sinks.sink import LiveSink
from mitml4.sinks.table.final import FinalTable
from mitml4.sinks.table.live import LiveTable
from mitml4.sinks.updates import Published, TlsSecret
from tests.sinks import test_har as har
from tests.sinks import test_pcapng as packets
from tests.sinks import test_plain as plain
from tests.sinks.table.test_live import Screen
from tests.steps import Steps, nothing_left

TIMEOUT_S = 30
FLOWS = 4


class Written:
    """A kind of sink, what it is given, and what its file has to be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sink = self.open()

    def open(self) -> LiveSink:
        raise NotImplementedError

    def events(self) -> Iterator[Sequence[Published]]:
        """What is published, in turns."""
        raise NotImplementedError

    def check(self, *, is_whole: bool) -> None:
        """Of what is written then. `is_whole`: nothing was cancelled."""
        raise NotImplementedError

    def close(self) -> None:
        """What the sink does not own."""


class Lines(Written):
    def open(self) -> LiveSink:
        return Background(JsonLines.to_file(self.path))

    def events(self) -> Iterator[Sequence[Published]]:
        for flow in range(FLOWS):
            yield [plain.opened(flow)] * 50

    def check(self, *, is_whole: bool) -> None:
        text = self.path.read_bytes()
        assert not text or text.endswith(b"\n")
        flows = [json.loads(line)["flow"] for line in text.splitlines()]
        expected = [flow for flow in range(FLOWS) for _ in range(50)]
        assert flows == (expected if is_whole else expected[: len(flows)])


class Archive(Written):
    def open(self) -> LiveSink:
        return Background(HttpArchive.to_file(self.path))

    def events(self) -> Iterator[Sequence[Published]]:
        yield [plain.opened()]
        yield [har.layer(0, "http/1")]
        for stream in range(1, FLOWS + 1):
            url = f"https://a.test/{stream}"
            yield [har.request(stream, url=url), har.response(stream), har.end(stream)]

    def check(self, *, is_whole: bool) -> None:
        entries = json.loads(self.path.read_bytes())["log"]["entries"]
        urls = [each["request"]["url"] for each in entries]
        expected = [f"https://a.test/{stream}" for stream in range(1, FLOWS + 1)]
        assert urls == (expected if is_whole else expected[: len(urls)])


class Opened(Written):
    def open(self) -> LiveSink:
        return PlainPackets(PlainFormat.to(self.path))

    def events(self) -> Iterator[Sequence[Published]]:
        for flow in range(1, FLOWS + 1):
            yield [plain.opened(flow), plain.begun(flow)]
            yield [plain.moved(Direction.UP, plain.REQUEST, flow), plain.closed(flow)]

    def check(self, *, is_whole: bool) -> None:
        said = [data for _, _, data in plain.packets(self.path) if data]
        assert said == [plain.REQUEST] * (FLOWS if is_whole else len(said))


class Packets(Written):
    def open(self) -> LiveSink:
        self.tap = packets.StandIn()
        taps: Any = [self.tap]
        return PacketFile.to_file(self.path, taps)

    def events(self) -> Iterator[Sequence[Published]]:
        for flow in range(1, FLOWS + 1):
            client = Address("10.0.0.1", 1000 + flow)
            self.tap.see(client, packets.SERVER, packets.SYN)
            yield [packets.opened(flow, client), TlsSecret(b"CLIENT_RANDOM %d" % flow)]
            self.tap.see(client, packets.SERVER, packets.ACK, b"data")
            yield [packets.closed(flow)]

    def check(self, *, is_whole: bool) -> None:
        with self.path.open("rb") as stream:
            found = list(read_packets(stream, str(self.path)))
        assert len(found) == 2 * FLOWS if is_whole else len(found) <= 2 * FLOWS
        assert self.tap.closed


class Table(Written):
    def open(self) -> LiveSink:
        self.master, self.slave = pty.openpty()
        return LiveTable(lambda _command: None, "never", terminal=self.slave)

    def events(self) -> Iterator[Sequence[Published]]:
        for flow in range(1, FLOWS + 1):
            yield [plain.opened(flow), plain.closed(flow)]

    def check(self, *, is_whole: bool) -> None:
        os.set_blocking(self.master, False)
        screen = Screen()
        try:
            while data := os.read(self.master, 65536):
                screen.feed(data)
        except BlockingIOError:
            pass
        assert not screen.alternate
        assert screen.cursor
        assert screen.autowrap

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


class Printed(Written):
    """On standard error."""

    sink_of: Callable[[], LiveSink]

    def open(self) -> LiveSink:
        self.stderr = self.path.open("w")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stderr", self.stderr)
            return type(self).sink_of()

    def events(self) -> Iterator[Sequence[Published]]:
        for flow in range(1, FLOWS + 1):
            yield [plain.opened(flow), plain.closed(flow)]

    def check(self, *, is_whole: bool) -> None:
        self.stderr.flush()
        text = self.path.read_text()
        assert not text or text.endswith("\n")
        assert len(text.splitlines()) >= FLOWS or not is_whole

    def close(self) -> None:
        self.stderr.close()


class PrintedLines(Printed):
    sink_of = lambda: FlowLines("never")  # noqa: E731


class PrintedTable(Printed):
    sink_of = lambda: FinalTable("never")  # noqa: E731


def run(written: Written, at: int) -> bool:
    """Publish all, and close the sink, which is cancelled at its step of this number. Whether it
    came to that."""
    scope = trio.CancelScope()
    acted = False

    def act() -> None:
        nonlocal acted
        acted = True
        scope.cancel()

    steps = Steps(at, act)

    async def main() -> None:
        with trio.fail_after(TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sink_task)
                for turn in written.events():
                    for event in turn:
                        written.sink.publish(event)
                    await trio.sleep(0.002)
                await written.sink.aclose()

    async def sink_task() -> None:
        steps.root = trio.lowlevel.current_task()
        with scope:
            await written.sink.run(task_status=trio.TASK_STATUS_IGNORED)
        steps.root = None

    trio.run(main, instruments=[steps])
    return acted


@pytest.mark.parametrize(
    "kind", [Lines, Archive, Opened, Packets, Table, PrintedLines, PrintedTable]
)
def test_each_wait_of_a_sink_can_be_cancelled(
    kind: type[Written], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pcapng, "_STEP_S", 0.001)
    monkeypatch.setattr(pcapng, "_HELD_S", 0.002)
    monkeypatch.setattr(pcapng, "_LAST_BLOCK_S", 0.002)
    for at in count(1):
        with nothing_left():
            written = kind(tmp_path / f"{at}")
            acted = run(written, at)
            written.check(is_whole=not acted)
            written.close()
        if not acted:
            break
    assert at > 3
