"""The flows of a file on a terminal: the index, the keys, and the program itself."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path

import pytest

import mitml4
from mitml4.address import Address
from mitml4.encoding import encode
from mitml4.events import FlowClose, FlowOpen
from mitml4.filter.parser import parse_filter
from mitml4.model.flow import Flow
from mitml4.screen.keyboard import keys_in
from mitml4.screen.keys import VIEW_KEYS
from mitml4.view.browser import Browser
from mitml4.view.index import Index
from tests.programs import Program
from tests.sinks.table.test_live import Screen

Make = Callable[..., Flow]
UP, DOWN, HOME, END, PAGE_DOWN = b"\x1b[A", b"\x1b[B", b"\x1b[H", b"\x1b[F", b"\x1b[6~"
TIMEOUT_S = 30.0


@pytest.fixture
def index(make_flow: Make) -> Iterator[Index]:
    """Three flows, in the order of their ends."""
    index = Index()
    index.add(make_flow(2, status=404, size=5))
    index.add(make_flow(1, size=99))
    index.add(make_flow(3, reason="reset"))
    yield index
    index.close()


def numbers(index: Index) -> list[int]:
    return [entry.number for entry in index.entries(0, 100)]


def test_flows_are_found_by_their_place_in_any_order(index: Index) -> None:
    assert (index.total, index.count(), numbers(index)) == (3, 3, [1, 2, 3])
    assert [index.flow(place).number for place in range(3)] == [1, 2, 3]
    assert index.flow(3) is None
    index.select(sort="bytes")
    assert numbers(index) == [1, 3, 2]
    index.select(sort="server", only_failed=True)
    assert (index.count(), numbers(index)) == (1, [3])
    (entry,) = index.entries(0, 1)
    assert (entry.server, entry.stack, entry.failed) == ("3.example:80", ("http/1",), True)
    assert [each.number for each in index.entries(1, 5)] == []


def test_a_filter_is_applied_bit_by_bit(index: Index, make_flow: Make) -> None:
    index.select(parse_filter("status:404 or 3.example"))
    assert numbers(index) == []
    assert index.examine(1)
    assert numbers(index) == [2]
    assert not index.examine(5)
    assert numbers(index) == [2, 3]
    index.add(make_flow(4, status=404))  # the file is still being read
    index.add(make_flow(5))
    assert not index.examine(5)
    assert numbers(index) == [2, 3, 4]
    index.select()
    assert (index.examine(5), index.count()) == (False, 5)


def test_the_same_flow_comes_back_and_odd_values_are_kept(make_flow: Make) -> None:
    index = Index()
    odd = make_flow(1, name="\ud800", bytes_up=1 << 70)
    odd.layers[0].details["host"] = "\ud800.example"
    index.add(odd)
    assert index.flow(0) == odd
    index.close()


def test_an_index_of_many_flows_is_on_disk(make_flow: Make) -> None:
    index = Index()
    for number in range(2000):
        flow = make_flow(number)
        flow.layers[0].details["noise"] = os.urandom(5000).hex()
        index.add(flow)
    pages = index._db.execute("PRAGMA page_count").fetchone()[0]
    size = index._db.execute("PRAGMA page_size").fetchone()[0]
    files = [os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")
             if os.path.islink(f"/proc/self/fd/{each}")]  # fmt: skip
    assert pages * size > 8 << 20
    assert any("etilqs" in each and each.endswith("(deleted)") for each in files)
    assert index.entries(1999, 1)[0].number == 1999
    index.close()


class Window:
    """A browser, and what it shows."""

    def __init__(self, index: Index, width: int = 100, height: int = 12) -> None:
        self.copied: list[str] = []
        self.saved: list[Flow] = []
        self.browser = Browser("events.jsonl", index, self.copied.append, self.save)
        self.index = index
        self.size = width, height

    def save(self, flow: Flow) -> str:
        self.saved.append(flow)
        return f"wrote {flow.number}"

    def press(self, *keys: bytes) -> Window:
        for key in keys:
            self.picture()
            self.browser.press(key)
            while self.index.examine(100):
                pass
        return self

    def picture(self) -> list[str]:
        lines = self.browser.picture(*self.size)
        return ["".join(cell.text for cell in line) for line in lines]

    @property
    def text(self) -> str:
        return "\n".join(self.picture())

    @property
    def selected(self) -> str:
        lines = self.browser.picture(*self.size)
        (found,) = [line[0].text for line in lines if line[0].style == "selected"]
        return found.split()[0]


def test_keys_move_the_selection_and_open_a_flow(index: Index) -> None:
    window = Window(index)
    assert window.selected == "1"
    for keys, number in (
        ([DOWN], "2"), ([b"j"], "3"), ([DOWN], "3"), ([UP], "2"), ([HOME], "1"), ([UP], "1"),
        ([END], "3"), ([b"g"], "1"), ([PAGE_DOWN], "3"), ([b"g", DOWN], "2"),
    ):  # fmt: skip
        assert window.press(*keys).selected == number
    opened = window.press(b"\r").text
    assert "http://2.example/" in opened
    assert "404" in opened
    assert "3.example" not in opened
    assert window.press(b"\x1b").selected == "2"
    assert not window.browser.is_over
    assert window.press(b"\r", b"q").selected == "2"
    assert window.press(b"q").browser.is_over


def test_a_filter_is_typed_and_dropped(index: Index) -> None:
    window = Window(index).press(*[b"%c" % each for each in b"/status:40x"])
    assert "/status:40x" in window.picture()[-1]
    assert "40x is no status" in window.press(b"\r").picture()[-1]
    assert "40x is no" not in window.press(b"\x7f").picture()[-1]
    window.press(b"4", b"\r")
    assert window.selected == "2"
    assert "1 of 3 flows  /status:404" in window.picture()[0]
    window.press(b"/", *keys_in("/ü".encode()))
    assert "/status:404/ü" in window.picture()[-1]
    window.press(b"\x7f", b"\x7f", b"\x1b")
    assert "3 flows" in window.picture()[0]
    assert "/status" not in window.text


def test_where_there_is_nothing_the_reason_is_told(index: Index) -> None:
    window = Window(index).press(*keys_in(b"/port:1 status:404\r"))
    assert window.picture()[1].strip() == "no flow matches port:1 status:404"
    empty = Index()
    assert "no flow" not in Window(empty).text
    assert "no flow has failed" in Window(empty).press(b"!").text
    empty.close()


def test_sorting_failures_and_the_keys_page(index: Index) -> None:
    window = Window(index)
    assert window.press(b"s", DOWN, DOWN).selected == "2"
    assert "by bytes" in window.picture()[0]
    assert window.press(b"!").selected == "3"
    assert "1 of 3 flows" in window.picture()[0]
    assert window.press(b"!", b"s", b"s", b"s").selected == "1"
    shown = Window(index, height=20).press(b"?").text
    for each in ("Page Up", "curl", "leave"):
        assert each in shown
    assert window.press(b"?", b"x", b"x").selected == "1"


def test_keys_that_do_not_fit_have_pages(index: Index) -> None:
    for height in (3, 4, 12, 40):
        window, told = Window(index, height=height).press(b"?"), []
        while "any key" in (picture := window.picture())[-1]:
            told += [line.strip() for line in picture[1:-1] if line.strip()]
            window.press(b" ")
        assert [line.split("  ")[0] for line in told] == [keys for keys, _ in VIEW_KEYS]
        assert "? keys" in window.picture()[-1]


def test_the_request_of_an_open_flow_is_copied(index: Index) -> None:
    window = Window(index).press(b"e")
    assert window.copied == []
    assert "open a flow" in window.picture()[-1]
    window.press(b"\r", b"e")
    assert window.copied == ["curl http://1.example/"]


def test_w_writes_the_selected_flow(index: Index) -> None:
    window = Window(index).press(DOWN, b"w")
    assert "wrote 2" in window.picture()[-1]
    assert "wrote" not in window.press(b"\r").text
    assert "wrote 2" in window.press(b"w").picture()[-1]
    assert [flow.number for flow in window.saved] == [2, 2]


def test_n_goes_from_request_to_request(index: Index, make_flow: Make) -> None:
    flow = make_flow(9)
    exchange = flow.exchanges[0]
    flow.exchanges = [replace(exchange, stream=number) for number in range(1, 31)]
    index.add(flow)
    window = Window(index).press(END, b"\r")
    window.picture()
    for key, first in ((b"n", 1), (b"n", 2), (b"n", 3), (b"N", 2), (b"N", 1), (b"N", 1)):
        assert window.press(key).picture()[1].startswith(f"{first}  GET"), key


@pytest.mark.parametrize("size", [(20, 4), (40, 10), (80, 24), (200, 60), (5, 2), (1, 1)])
def test_a_picture_fits_its_window(index: Index, make_flow: Make, size: tuple[int, int]) -> None:
    from rich.cells import cell_len

    index.add(make_flow(4, name="例え.example\x1b[31m"))
    window = Window(index, *size)
    for keys in ([], [b"\r"], [b"?"], [b" ", b"/", b"x"]):
        picture = window.press(*keys).picture()
        assert len(picture) == size[1]
        assert {cell_len(line) for line in picture} == {size[0]}
        assert all(line.isprintable() for line in picture)


def test_without_flows_there_is_nothing_to_open() -> None:
    index = Index()
    window = Window(index).press(b"\r", DOWN, UP, b"e", b"w", b"s", b"!")
    assert window.saved == []
    assert "0 flows" in window.text
    assert not window.browser.is_over
    index.close()


class Terminal:
    """`mitml4 view` on a terminal."""

    def __init__(
        self,
        *arguments: str | Path,
        directory: Path | None = None,
        stdin: int | None = None,
    ) -> None:
        self._ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 100, 0, 0))
        self.screen = Screen()
        self.process = Program(
            ["-m", "mitml4", "view", *map(str, arguments)],
            stdin=theirs if stdin is None else stdin,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color"},
            cwd=directory,
        )
        os.close(theirs)

    @property
    def text(self) -> str:
        return "\n".join("".join(line) for _, line in sorted(self.screen.lines.items()))

    def wait_for(self, *words: str, gone: str = "\0") -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not all(word in self.text for word in words) or gone in self.text:
            assert time.monotonic() < deadline, self.text
            self._read(0.1)

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def end(self) -> int:
        """Read what it says until it has ended. Returns its exit code."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._read(0.1):
            assert time.monotonic() < deadline
        return self.process.wait(TIMEOUT_S)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return True
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # nobody has the other end any more
            return False
        self.screen.feed(data)
        return bool(data)


def test_view_on_a_terminal(write_capture: Callable[..., Path]) -> None:
    request = b"GET /%d HTTP/1.1\r\nHost: %d.example\r\n\r\n"
    answer = b"HTTP/1.1 %d Fine\r\nContent-Length: 2\r\n\r\nok"
    capture = write_capture(
        *([("up", request % (each, each)), ("down", answer % (200 + each))] for each in range(60))
    )
    with Terminal(capture, "--payload") as terminal:
        terminal.wait_for("capture.pcap  60 flows", "0.example:80", "Enter open", gone="reading")
        terminal.press(b"G")
        terminal.wait_for("59.example:80")
        terminal.press(b"/status:207\r")
        terminal.wait_for("1 of 60 flows", "7.example:80", gone="59.example")
        terminal.press(b"\r")
        terminal.wait_for("http://7.example/7", "q back")
        terminal.press(b"qq")
        assert terminal.end() == 0
        assert not terminal.screen.alternate
        assert terminal.screen.cursor


def test_w_writes_a_flow_of_a_capture(write_capture: Callable[..., Path], tmp_path: Path) -> None:
    request = b"GET /%d HTTP/1.1\r\nHost: %d.example\r\n\r\n"
    answer = b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok"
    capture = write_capture(
        *([("up", request % (each, each)), ("down", answer)] for each in range(3))
    )
    directory = tmp_path / "here"
    directory.mkdir()
    with Terminal(capture, "--payload", directory=directory) as terminal:
        terminal.wait_for("2.example:80", gone="reading")
        assert not list(directory.iterdir())
        terminal.press(b"jw")
        terminal.wait_for("wrote flow-2.jsonl: 7 events of flow 2")
        directory.chmod(0o500)
        terminal.press(b"w")
        if os.geteuid():
            terminal.wait_for("cannot write flow 2: Permission denied")
        else:
            terminal.wait_for("wrote flow-2-2.jsonl")
        directory.chmod(0o700)
        terminal.press(b"q")
        assert terminal.end() == 0
    expected = [flow for flow in mitml4.read(capture, payload=True) if flow.number == 2]
    assert list(mitml4.read(directory / "flow-2.jsonl")) == expected


def test_a_pipe_is_shown_while_it_goes_on() -> None:
    end = Address("192.0.2.1", 443)

    def lines(number: int) -> bytes:
        opened = FlowOpen(flow=number, client=end, destination=end, name=f"{number}.example")
        closed = FlowClose(
            flow=number, stack=(), reason="closed", bytes_up=0, bytes_down=0, duration_s=0.0
        )
        return f"{encode(opened)}\n{encode(closed)}\n".encode()

    reader, writer = os.pipe()
    with Terminal("-", stdin=reader) as terminal, os.fdopen(writer, "wb", 0) as pipe:
        os.close(reader)
        terminal.wait_for("standard input  0 flows  reading")
        pipe.write(lines(1))
        terminal.wait_for("1 flow  reading", "1.example:443")
        terminal.press(b"?")  # while nothing comes
        terminal.wait_for("Page Up")
        terminal.press(b"xx")
        pipe.write(lines(2) + b'{"type":')
        terminal.wait_for("2.example:443")
        pipe.close()
        terminal.wait_for("standard input: line 5 is no JSON", gone="reading")
        terminal.press(b"q")
        assert terminal.end() == 1
        assert "Traceback" not in terminal.screen.after


def test_a_pipe_can_be_left_before_its_end() -> None:
    reader, writer = os.pipe()
    with Terminal("-", stdin=reader) as terminal:
        os.close(reader)
        terminal.wait_for("0 flows  reading")
        terminal.press(b"q")
        assert terminal.end() == 0
        assert terminal.screen.after == ""
        os.close(writer)


def test_view_of_a_broken_file_on_a_terminal(http_capture: Path) -> None:
    http_capture.write_bytes(http_capture.read_bytes()[:-20])
    with Terminal(http_capture) as terminal:
        terminal.wait_for("a.example:80", "the file ends")
        terminal.press(b"q")
        assert terminal.end() == 1
        assert "error: " in terminal.screen.after


def test_a_signal_leaves_the_terminal_as_it_was(http_capture: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        with Terminal(http_capture) as terminal:
            terminal.wait_for("a.example:80", gone="reading")
            terminal.process.send_signal(number)
            assert terminal.end() == 128 + number
            assert not terminal.screen.alternate
            assert terminal.screen.cursor
            assert "Traceback" not in terminal.screen.after
