"""The table on a pseudo-terminal: what it shows, what its keys do, and how it leaves."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import textwrap
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import mitml4
from mitml4.sinks.table.model import TableModel
from mitml4.sinks.table.view import Mode, help_page_count, render
from tests.programs import Program

TIMEOUT_S = 60.0
"""How long anything may take on a busy machine: no test shows anything by its speed."""

# What a session does with its table; `CTRL-C` is left to what the test's script says of it.
PRELUDE = """
import os, sys
import trio
from mitml4.address import Address
from mitml4.events import FlowClose, FlowLayer, FlowOpen, LayerEvent, SessionStart
from mitml4.protocols.conversation import Direction
from mitml4.protocols.flow_data import FlowData
from mitml4.protocols.http.events import HttpRequest, HttpResponse
from mitml4.sinks.commands import Measure, Stop
from mitml4.sinks.flow_files import FlowFiles
from mitml4.sinks.updates import BytesMoved, Stopping
from mitml4.sinks.table.live import LiveTable

moved = {}
stopped = trio.Event()

def ask(command):
    match command:
        case Stop():
            stopped.set()
            publish(Stopping())
        case Measure(flows):
            for flow in moved.keys() & set(flows):
                publish(BytesMoved(flow=flow, up=0, down=moved[flow], at_s=trio.current_time()))
        case _:
            return f"asked for {command}"

table = LiveTable(ask, "never", files=FlowFiles(), qr=["▀▄▀▄"])
publish = table.publish

def start():
    publish(SessionStart(version="0", mode="intercept", interfaces=("eth0",), listeners=(), ca=None,
                         table=None, pid=1))

def open_flows(first, last):
    for flow in range(first, last + 1):
        publish(FlowOpen(flow=flow, client=Address("192.0.2.1", 1),
                         destination=Address("192.0.2.2", 80), name=f"host-{flow}.example"))

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(table.run)
        start()
        await session(nursery)
        await table.aclose()
    print("the summary")
"""

_SEQUENCE = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|([^\x1b]+)|\x1b\]52;c;([^\x07]*)\x07")


@dataclass
class Screen:
    """As much of a terminal as the table uses; an unknown sequence is a failure."""

    lines: dict[int, list[str]] = field(default_factory=dict)
    row: int = 1
    column: int = 1
    alternate: bool = False
    cursor: bool = True
    autowrap: bool = True
    clipboard: str = ""
    after: str = ""
    """What was printed while the alternate screen was not shown."""
    rest: str = ""
    decoder: codecs.IncrementalDecoder = field(
        default_factory=codecs.getincrementaldecoder("utf-8")
    )

    def feed(self, data: bytes) -> None:
        text = self.rest + self.decoder.decode(data)
        position = 0
        while match := _SEQUENCE.match(text, position):
            position = match.end()
            if match[4]:
                self.clipboard = match[4]
            elif match[3]:
                self._print(match[3].replace("\r", ""))
            else:
                self._obey(match[1], match[2])
        self.rest = text[position:]
        assert len(self.rest) < 10 or self.rest.startswith("\x1b]52"), f"unknown: {self.rest!r}"

    def _print(self, text: str) -> None:
        if not self.alternate:
            self.after += text
            return
        line = self.lines.setdefault(self.row, [])
        for char in text:
            line.extend(" " * (self.column - len(line)))
            line[self.column - 1] = char
            self.column += 1

    def _obey(self, argument: str, final: str) -> None:
        match argument, final:
            case ("?1049", "h" | "l"):
                self.alternate = final == "h"
            case ("?25", "h" | "l"):
                self.cursor = final == "h"
            case ("?7", "h" | "l"):
                self.autowrap = final == "h"
            case ("?2026", "h" | "l") | (_, "m"):
                pass
            case ("2", "J"):
                self.lines.clear()
            case (_, "H"):
                self.row, self.column = map(int, argument.split(";"))
            case (_, "G"):
                self.column = int(argument)
            case _:
                raise AssertionError(f"unknown: {argument}{final}")

    @property
    def text(self) -> str:
        return "\n".join("".join(self.lines[row]).rstrip() for row in sorted(self.lines))


@dataclass
class Window:
    """A terminal with a table in it."""

    process: Program
    master: int
    slave: int
    attributes: list[Any]
    """Of the terminal, before the table changed them."""
    screen: Screen = field(default_factory=Screen)
    read_bytes: int = 0

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def resize(self, columns: int, lines: int) -> None:
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def wait(self, condition: Callable[[Screen], bool]) -> Screen:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition(self.screen):
            left = deadline - time.monotonic()
            ready = select.select([self.master], [], [], max(0.0, left))[0]
            if not ready:
                pytest.fail(f"waited in vain; the screen is:\n{self.screen.text}")
            if not self._read():
                break
        assert condition(self.screen), self.screen.text
        return self.screen

    def read_for(self, seconds: float) -> None:
        """Whatever is written meanwhile."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                self._read()

    def wait_for(self, *texts: str) -> Screen:
        return self.wait(lambda screen: all(text in screen.text for text in texts))

    def wait_end(self) -> Screen:
        while self._read():
            pass
        self.process.wait(TIMEOUT_S)
        return self.screen

    def _read(self) -> bool:
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # EIO: the other side is closed
            return False
        self.read_bytes += len(data)
        self.screen.feed(data)
        return bool(data)


@pytest.fixture
def window() -> Iterator[Callable[[str], Window]]:
    """Start a session with a table in a terminal of 80×24."""
    opened: list[Window] = []

    def start(session: str, directory: Path | None = None, prepare: str = "") -> Window:
        master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        script = prepare + PRELUDE + textwrap.dedent(session) + "\ntrio.run(main)\n"
        environment = os.environ | {"TERM": "xterm-256color"}
        process = Program(
            ["-c", script],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment,
            cwd=directory,
        )
        window = Window(process, master, slave, attributes)
        window.resize(80, 24)
        opened.append(window)
        return window

    yield start
    for one in opened:
        one.process.kill()
        one.process.wait()
        for descriptor in (one.master, one.slave):
            os.close(descriptor)


UNTIL_STOPPED = """
async def session(nursery):
    open_flows(1, 3)
    await stopped.wait()
"""


def leave(window: Window) -> Screen:
    """Let go of our own end of the terminal, so that its end can be seen."""
    os.close(window.slave)
    window.slave = os.open(os.devnull, os.O_RDONLY)
    return window.wait_end()


def test_it_shows_the_session_and_its_flows(window) -> None:
    screen = window(UNTIL_STOPPED).wait_for("host-3.example:80", "3 open of 3 flows")
    assert screen.alternate
    assert not screen.cursor
    assert not screen.autowrap
    assert screen.text.startswith("mitml4 intercepts eth0")


def test_q_ends_the_session_and_gives_the_terminal_back(window) -> None:
    shown = window(UNTIL_STOPPED)
    shown.wait_for("host-3")
    assert termios.tcgetattr(shown.slave) != shown.attributes
    shown.press(b"q")
    shown.wait(lambda screen: "the summary" in screen.after)
    assert termios.tcgetattr(shown.slave) == shown.attributes
    screen = leave(shown)
    assert shown.process.returncode == 0
    assert (screen.alternate, screen.cursor, screen.autowrap) == (False, True, True)
    assert screen.after == "the summary\n"


@pytest.mark.parametrize(
    "trouble", ['raise RuntimeError("oh")', "os.kill(os.getpid(), 2); await trio.sleep(60)"]
)
def test_the_terminal_is_given_back_however_it_ends(window, trouble: str) -> None:
    shown = window(f"""
        import signal

        async def session(nursery):
            with trio.open_signal_receiver(signal.SIGUSR1) as told:
                open_flows(1, 3)
                await anext(told)
            {trouble}
    """)
    shown.wait_for("host-3")
    shown.process.send_signal(signal.SIGUSR1)
    shown.wait(lambda screen: "Traceback" in screen.after)
    assert termios.tcgetattr(shown.slave) == shown.attributes
    screen = leave(shown)
    assert (screen.alternate, screen.cursor, screen.autowrap) == (False, True, True)


def test_a_picture_that_takes_long_does_not_keep_the_terminal(window) -> None:
    """As on a machine with better things to do."""
    shown = window("""
        import time

        draw, begun = table._canvas.draw, []

        def draw_slowly(lines, size):
            begun.append(1)
            time.sleep(1)
            draw(lines, size)

        table._canvas.draw = draw_slowly

        async def session(nursery):
            open_flows(1, 3)
            while not begun:
                await trio.sleep(0.01)
            raise RuntimeError("oh")
    """)
    shown.wait(lambda screen: "Traceback" in screen.after)
    screen = leave(shown)
    assert (screen.alternate, screen.cursor, screen.autowrap) == (False, True, True)
    assert "host" not in screen.after


def test_what_is_said_meanwhile_is_said_afterwards(window) -> None:
    shown = window("""
        async def session(nursery):
            print("note: something", file=sys.stderr)
            open_flows(1, 1)
            await stopped.wait()
    """)
    screen = shown.wait_for("host-1")
    assert "something" not in screen.text + screen.after
    shown.press(b"q")
    assert leave(shown).after == "note: something\nthe summary\n"


def test_a_window_that_is_resized_is_drawn_anew(window) -> None:
    shown = window(UNTIL_STOPPED)
    shown.wait_for("host-3")
    for columns, lines in ((40, 10), (120, 40), (20, 3), (80, 24)):
        shown.resize(columns, lines)
        shown.wait(
            lambda screen, lines=lines, columns=columns: (
                len(screen.lines) == lines
                and all(len(line) == columns for line in screen.lines.values())
            )
        )


def test_nothing_is_written_while_nothing_changes(window) -> None:
    shown = window("""
        import signal

        async def session(nursery):
            with trio.open_signal_receiver(signal.SIGUSR1) as told:
                open_flows(1, 3)
                await anext(told)
            publish(FlowClose(flow=1, stack=(), reason="closed", bytes_up=0, bytes_down=0,
                              duration_s=1.0))
            await stopped.wait()
    """)
    shown.wait_for("3 open of 3 flows")
    before = shown.read_bytes
    shown.read_for(0.5)  # as long as two pictures take
    shown.process.send_signal(signal.SIGUSR1)
    shown.wait_for("2 open of 3 flows")
    assert shown.read_bytes - before < 500


def test_no_picture_is_made_while_nothing_changes(window) -> None:
    """With 10,000 flows, each takes two milliseconds."""
    shown = window("""
        from mitml4.sinks.table import live

        live._FRAME_S = 0.01
        pictures, measured = [], []
        paint, measure = table._painter.paint, table._ask

        def count(*arguments, **options):
            pictures.append(1)
            return paint(*arguments, **options)

        def answer(command):
            measured.append(1)
            return measure(command)

        table._painter.paint, table._ask = count, answer

        async def session(nursery):
            open_flows(1, 3)
            moved[1] = 0
            while len(measured) < 50:
                await trio.sleep(0.01)
            print(f"{len(pictures)} pictures")
    """)
    screen = leave(shown)
    made = re.search(r"(\d+) pictures", screen.after + screen.text)
    assert made
    assert 1 <= int(made[1]) < 10


def test_bytes_of_open_flows_are_shown_as_they_move(window) -> None:
    shown = window("""
        async def session(nursery):
            open_flows(1, 1)
            moved[1] = 0
            while not stopped.is_set():
                moved[1] += 5_000
                await trio.sleep(0.05)
    """)
    shown.resize(120, 24)
    shown.wait(lambda screen: re.search(r"[0-9.]+k +[0-9.]+k/s", screen.text) is not None)


MANY = UNTIL_STOPPED.replace("open_flows(1, 3)", "open_flows(1, 100)")


def selected_on(screen: Screen) -> list[int]:
    return [int(number) for number in re.findall(r"› *(\d+)", screen.text)]


def test_keys_select_and_scroll(window) -> None:
    up, down, page_up, page_down = b"\x1b[A", b"\x1b[B", b"\x1b[5~", b"\x1b[6~"
    home, end, shift_tab = b"\x1b[H", b"\x1b[F", b"\x1b[Z"
    shown = window(MANY)
    for key, selected, newest in (
        (b"", 100, 100),
        *((up, 99, 100), (b"k", 98, 100), (b"k", 97, 100), (b"j", 98, 100), (down, 99, 100)),
        *((b"G", 100, 100), (page_up, 81, 100), (page_up, 62, 81), (page_down, 81, 81)),
        *((b"g", 1, 20), (b"G", 100, 100), (home, 1, 20), (end, 100, 100)),
        *((b"g", 1, 20), (b"f", 100, 100), (b"j", 100, 100), (shift_tab, 100, 100)),
        *((b"\x1b", 100, 100), (up, 99, 100)),
    ):
        shown.press(key)
        shown.wait(
            lambda screen, selected=selected, newest=newest: (
                selected_on(screen) == [selected]
                and flows_on(screen) == [*range(newest - 19, newest + 1)]
            )
        )


def test_w_writes_the_selected_flow_to_a_new_file(window, tmp_path: Path) -> None:
    shown = window(EXCHANGE, tmp_path)
    shown.wait_for("host-3.example")
    shown.press(b"k")
    shown.wait(lambda screen: selected_on(screen) == [2])
    assert not list(tmp_path.iterdir())
    shown.press(b"w")
    shown.wait_for("wrote flow-2.jsonl: 5 events of flow 2 so far")
    shown.press(b"\r")
    shown.wait_for("q back")
    before = (tmp_path / "flow-2.jsonl").read_bytes()
    shown.press(b"w")
    shown.wait_for("wrote flow-2-2.jsonl: 5 events")
    for name in ("flow-2.jsonl", "flow-2-2.jsonl"):
        path = tmp_path / name
        assert path.read_bytes() == before
        assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o600, os.geteuid())
        (flow,) = mitml4.read(path)
        assert (flow.number, str(flow.server)) == (2, "host-2.example:80")
        assert flow.exchanges[0].request.url == "http://host-2.example/x"
    assert len(list(tmp_path.iterdir())) == 2


def test_w_says_what_is_not_kept_any_more(window, tmp_path: Path) -> None:
    shown = window(
        """
        async def session(nursery):
            open_flows(1, 1)
            for number in range(60):
                text = "x" * 65536
                publish(LayerEvent(flow=1, depth=0, content=FlowData(
                    direction=Direction.UP, offset=number * len(text), text=text)))
            publish(FlowClose(flow=1, stack=(), reason="closed", bytes_up=0, bytes_down=0,
                              duration_s=1.0))
            await stopped.wait()
        """,
        tmp_path,
    )
    shown.wait_for("0 open of 1 flow")
    shown.press(b"w")
    screen = shown.wait_for("wrote flow-1.jsonl", "earlier ones are not kept")
    said = re.search(r"(\d+) events of flow 1; (\d+) earlier", screen.text)
    assert said
    assert int(said[1]) + int(said[2]) == 62
    (flow,) = mitml4.read(tmp_path / "flow-1.jsonl")
    assert (flow.reason, len(flow.data)) == ("closed", int(said[1]) - 2)
    assert flow.data[-1].offset == 59 * 65536


def test_without_w_no_file_is_there(window, tmp_path: Path) -> None:
    shown = window(EXCHANGE, tmp_path)
    shown.wait_for("host-3.example")
    assert not list(tmp_path.iterdir())
    shown.press(b"q")
    assert leave(shown).after == "the summary\n"
    assert not list(tmp_path.iterdir())


def test_a_key_about_a_flow_that_has_left_the_table_is_answered(window, tmp_path: Path) -> None:
    shown = window(
        """
        import signal
        from mitml4.sinks.table import model

        model.MAX_ROWS = 3

        async def session(nursery):
            open_flows(1, 1)
            with trio.open_signal_receiver(signal.SIGUSR1) as told:
                await anext(told)
            publish(FlowClose(flow=1, stack=(), reason="closed", bytes_up=0, bytes_down=0,
                              duration_s=1.0))
            open_flows(2, 4)
            await stopped.wait()
        """,
        tmp_path,
    )
    shown.wait_for("host-1.example")
    shown.press(b"\r")
    shown.wait_for("q back")
    shown.process.send_signal(signal.SIGUSR1)
    shown.wait_for("3 open of 4 flows")
    shown.press(b"x")
    shown.wait_for("flow 1 has left the table")
    shown.press(b"w")
    shown.wait_for("wrote flow-1.jsonl: 2 events of flow 1")


REMOVED = """
import os
os.mkdir("gone")
os.chdir("gone")
os.rmdir("../gone")
"""
FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
"""


@pytest.mark.parametrize(
    ("prepare", "reason"), [(REMOVED, "No such file or directory"), (FULL, "File too large")]
)
def test_w_that_fails_is_said_and_leaves_no_file(
    window, tmp_path: Path, prepare: str, reason: str
) -> None:
    shown = window(EXCHANGE, tmp_path, prepare)
    shown.wait_for("host-3.example")
    for _ in range(2):
        shown.press(b"w")
        shown.wait_for(f"cannot write flow 3: {reason}")
    shown.press(b"k")
    shown.wait(lambda screen: "cannot" not in screen.text)
    shown.press(b"q")
    assert "Traceback" not in leave(shown).after
    assert not list(tmp_path.iterdir())  # nor is any written any more


EXCHANGE = """
async def session(nursery):
    open_flows(1, 3)
    publish(FlowLayer(flow=2, depth=0, protocol="http/1", speaker="client", action="relayed"))
    publish(LayerEvent(flow=2, depth=0, content=HttpRequest(
        stream=1, method="GET", url="http://host-2.example/x", version="HTTP/1.1",
        headers=(("X-Evil", "\\x1b[31m"),))))
    publish(LayerEvent(flow=2, depth=0, content=HttpResponse(
        stream=1, status=418, version="HTTP/1.1", content_type="text/plain")))
    publish(LayerEvent(flow=2, depth=0, content=FlowData(
        direction=Direction.DOWN, offset=0, text='{"a": [1]}')))
    await stopped.wait()
"""


def test_enter_opens_a_flow_and_q_goes_back(window) -> None:
    shown = window(EXCHANGE)
    shown.wait_for("host-3.example")
    shown.press(b"k")
    shown.wait_for("›   2")
    shown.press(b"\r")
    screen = shown.wait_for("#2  host-2.example:80  http/1", "q back")
    for text in ("192.0.2.1:1 to 192.0.2.2:80", "http/1  relayed, the client began",
                 "1  GET http://host-2.example/x", "  X-Evil: \\x1b[31m", "418  text/plain",
                 "  [json, 10 bytes]", '      "a": [', "        1"):  # fmt: skip
        assert text in screen.text
    shown.press(b"e")
    shown.wait_for("copied, if the terminal allows it: curl http://host-2.example/x")
    copied = b64decode(shown.screen.clipboard)
    assert copied == b"curl http://host-2.example/x -H 'X-Evil: \x1b[31m'"
    shown.press(b"q")
    shown.wait_for("host-3.example", "q quit")
    shown.press(b"q")
    shown.wait(lambda screen: "the summary" in screen.after)


def test_a_filter_is_typed(window) -> None:
    shown = window(MANY)
    shown.wait_for("host-100.example")
    for key in b"/host:*-7*":
        shown.press(bytes([key]))
    shown.wait_for("/host:*-7*")
    shown.press(b"\r")
    shown.wait(lambda screen: flows_on(screen) == [7, *range(70, 80)])
    shown.press(b"/")
    shown.press(b"\x7f" * 9 + b"(")
    shown.wait_for("/(")
    shown.press(b"\r")
    lines = shown.wait_for("/(▏", "^ ").text.splitlines()
    assert (lines[-2].rstrip(), lines[-1].index("^")) == ("/(▏", len("/("))
    shown.press("\x7fé foo:a".encode())
    shown.wait_for("/é foo:a▏")
    shown.press(b"\r")
    assert shown.wait_for("^ ").text.splitlines()[-1].startswith("   ^ there is no word")
    shown.press(b"\x1b")
    shown.wait(lambda screen: flows_on(screen) == [*range(81, 101)])


def test_keys_act_on_the_selected_flow(window) -> None:
    shown = window(UNTIL_STOPPED)
    shown.wait_for("host-3.example")
    for key, said in (
        (b"b", "asked for Refuse(host='host-2.example')"),
        (b"p", "asked for PassThrough(host='host-2.example')"),
        (b"x", "asked for Reset(flow=2)"),
        (b"e", "open a flow with a request first"),
    ):
        shown.press(b"k")
        shown.wait_for("›   2")
        shown.press(key)
        shown.wait_for(said)
        shown.press(b"f")


def test_flows_are_sorted(window) -> None:
    shown = window(UNTIL_STOPPED.replace("await", "moved.update({1: 30, 2: 90, 3: 60}); await"))
    shown.wait_for("host-3.example")
    shown.press(b"s")
    shown.wait(lambda screen: flows_on(screen) == [1, 3, 2] and "by bytes" in screen.text)
    shown.press(b"sss")
    shown.wait(lambda screen: flows_on(screen) == [1, 2, 3])


def test_keys_that_are_pressed_behind_the_help_only_close_it(window) -> None:
    shown = window(MANY)
    shown.wait_for("host-100.example")
    for key in (b"?", b"q", b"p", b"!", b"k", b"g", b"\x1b[5~", b"x"):
        shown.press(b"?")
        shown.wait(lambda screen: "any key" in screen.text and "host-100" not in screen.text)
        shown.press(key)
        shown.wait(lambda screen: flows_on(screen) == [*range(81, 101)])
        assert "/ filter" in shown.screen.text
        assert "! failed" in shown.screen.text
        assert "ending" not in shown.screen.text


def test_help_that_is_longer_than_the_window_has_pages(window) -> None:
    shown = window(MANY)
    shown.resize(40, 10)
    shown.wait_for("…st-100.example")
    shown.press(b"?")
    pages = help_page_count(40, 10)
    assert pages > 1
    for page in range(pages):
        lines = render(TableModel(), [], 40, 10, Mode(help_page=page))[3:-1]
        shown.wait_for("any key", *("".join(cell.text for cell in line).strip() for line in lines))
        shown.press(b" ")
    shown.wait_for("…st-100.example")


def flows_on(screen: Screen) -> list[int]:
    return [int(number) for number in re.findall(r"host-(\d+)", screen.text)]


def test_scrolled_back_the_view_stays_while_flows_come(window) -> None:
    shown = window("""
        async def session(nursery):
            open_flows(1, 50)
            while table._look.selected is None:
                await trio.sleep(0.01)
            open_flows(51, 60)
            await stopped.wait()
    """)
    shown.wait_for("host-50")
    shown.press(b"k")
    screen = shown.wait_for("60 open")
    assert flows_on(screen) == [*range(31, 51)]
    assert selected_on(screen) == [49]
    shown.press(b"G")
    shown.wait_for("host-60")


def test_space_holds_the_picture_and_space_again_lets_it_go_on(window) -> None:
    shown = window("""
        async def session(nursery):
            open_flows(1, 3)
            while table._frozen is None:
                await trio.sleep(0.01)
            open_flows(4, 6)
            await stopped.wait()
    """)
    shown.wait_for("host-3")
    shown.press(b" ")
    screen = shown.wait_for("paused")
    shown.read_for(0.5)
    assert "host-4" not in screen.text
    shown.press(b" ")
    shown.wait_for("host-6", "/ filter")


def test_a_terminal_that_is_gone_ends_it_like_a_pipe_without_reader(window, tmp_path) -> None:
    told = tmp_path / "told"
    shown = window(f"""
        import signal
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

        async def session(nursery):
            flow = 0
            while True:
                flow += 1
                open_flows(flow, flow)
                await trio.sleep(0.01)

        async def watched(run=table.run):
            try:
                await run(task_status=trio.TASK_STATUS_IGNORED)
            except BrokenPipeError:
                open({str(told)!r}, "w").close()
                os._exit(0)

        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watched)
                start()
                await session(nursery)
    """)
    shown.wait_for("host-3")
    os.close(shown.slave)
    os.close(shown.master)
    shown.slave, shown.master = (os.open(os.devnull, os.O_RDONLY) for _ in range(2))
    shown.process.wait(TIMEOUT_S)
    assert told.exists()


def test_a_terminal_that_takes_nothing_holds_nobody_up(window, tmp_path) -> None:
    """While nobody reads its other side, the session goes on as before."""
    told = tmp_path / "told"
    shown = window(f"""
        async def session(nursery):
            for flow in range(1, 10_000):
                open_flows(flow, flow)
                if flow % 100 == 0:
                    await trio.sleep(0.01)
            open({str(told)!r}, "w").close()
    """)
    deadline = time.monotonic() + TIMEOUT_S
    while not told.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "the summary" in leave(shown).after
    assert shown.process.returncode == 0


def test_no_other_flow_takes_the_place_of_the_one_that_is_read(window) -> None:
    """A table that has forgotten it does not close it. A key acts on it, or on nothing."""
    shown = window("""
        from mitml4.sinks.table import model
        model.MAX_ROWS = 3
        import signal

        async def session(nursery):
            with trio.open_signal_receiver(signal.SIGUSR1) as told:
                open_flows(1, 3)
                await anext(told)
            open_flows(4, 5)
            await stopped.wait()
    """)
    shown.wait_for("host-3.example")
    shown.press(b"g")
    shown.wait_for("›   1")
    shown.press(b"\r")
    shown.wait_for("#1  host-1.example")
    shown.process.send_signal(signal.SIGUSR1)
    shown.wait_for("5 open of 5 flows", "#1  host-1.example")
    shown.press(b"x")
    shown.press(b"\x1b")
    shown.wait_for("›   3", "host-5.example")
    assert "asked" not in shown.screen.text


def test_enter_without_a_flow_opens_none_that_comes_later(window) -> None:
    shown = window("""
        import signal

        async def session(nursery):
            with trio.open_signal_receiver(signal.SIGUSR1) as told:
                await anext(told)
            open_flows(1, 1)
            await stopped.wait()
    """)
    shown.wait_for("waiting for connections")
    shown.press(b"\r ")
    shown.wait_for("paused")
    shown.process.send_signal(signal.SIGUSR1)
    shown.read_for(0.5)
    assert "host-1" not in shown.screen.text  # paused, although there was nothing to keep
    shown.press(b" ")
    shown.wait_for("›   1", "q quit")


def test_the_next_request_of_a_flow_comes_to_the_top(window) -> None:
    shown = window("""
        async def session(nursery):
            open_flows(1, 1)
            for number in range(1, 31):
                publish(LayerEvent(flow=1, depth=0, content=HttpRequest(
                    stream=number, method="GET", url=f"http://a/{number}", version="HTTP/1.1")))
            await stopped.wait()
    """)
    shown.wait_for("GET /30")
    shown.press(b"\r")
    shown.wait_for("30 requests")
    for keys, first in ((b"n", 1), (b"n", 2), (b"nn", 4), (b"N", 3)):
        shown.press(keys)
        shown.wait(lambda s, first=first: s.text.splitlines()[3].startswith(f"{first}  GET"))
    shown.press(b"N" * 9)
    shown.wait(lambda screen: screen.text.splitlines()[3].startswith("1  GET"))


def test_c_shows_the_page_of_the_ca_and_any_key_goes_back(window) -> None:
    table = window(UNTIL_STOPPED)
    table.wait_for("host-3.example")
    table.press(b"c")
    assert "host-3.example" not in table.wait_for("http://192.0.2.1/", "▀▄▀▄").text
    table.press(b"q")
    table.wait_for("host-3.example")
    table.press(b"q")
    leave(table)
