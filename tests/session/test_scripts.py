"""Scripts in their processes: what they do wrong stops nobody, and leaves the traffic as it was."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from mitml4.address import Address
from mitml4.edit.editor import Applied, EditedFlow, Failed
from mitml4.edit.headers import Headers
from mitml4.edit.messages import Message, Request, Response
from mitml4.errors import UsageError
from mitml4.events import FlowClose, FlowOpen, ScriptError
from mitml4.model.flow import Flow
from mitml4.session.editors.script import Script

LIMIT = 1 << 16
CLIENT, SERVER = Address("192.0.2.1", 50000), Address("192.0.2.2", 80)


@dataclass
class Lab:
    """A script, and what it has said and done."""

    path: Path
    script: Script
    notes: list[str] = field(default_factory=list)
    done: list[Applied | Failed] = field(default_factory=list)
    errors: list[ScriptError] = field(default_factory=list)

    def flow(self, number: int = 1, name: str = "a.test") -> EditedFlow:
        model = Flow(
            number=number, client=CLIENT, destination=SERVER, opened_at=datetime.now(UTC), name=name
        )
        return EditedFlow(model, self.done.append)

    async def get(self, path: str = "/", flow: EditedFlow | None = None) -> Response:
        """Ask both hooks, as for a request that is answered with `ok`."""
        request = Request(
            version="HTTP/1.1", method="GET", scheme="http", authority="a.test", target=path
        )
        flow = flow or self.flow()
        if answer := await self.script.request(flow, request):
            assert isinstance(answer, Response)
            return answer
        response = Response(status=200, headers=Headers.of([("A", "b")]), body=b"ok")
        await self.script.response(flow, request, response)
        return response

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(30):
            while not condition():  # noqa: ASYNC110 - a process says when
                await trio.sleep(0.02)

    @property
    def failed(self) -> list[str]:
        return [each.what for each in self.done if isinstance(each, Failed)]


def write(path: Path, text: str) -> None:
    path.write_bytes(text.encode(errors="surrogateescape"))


@asynccontextmanager
async def running(path: Path, text: str, timeout_s: float = 20.0) -> AsyncIterator[Lab]:
    write(path, text)
    errors: list[ScriptError] = []
    script = Script(path, timeout_s=timeout_s, limit=LIMIT, publish=errors.append)
    lab = Lab(path, script, errors=errors)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.run, lab.notes.append)
        await trio.testing.wait_all_tasks_blocked()
        try:
            yield lab
            await script.finish()
        finally:
            script.close()
            nursery.cancel_scope.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hooks.py"


UNCHANGED = (200, [("A", "b")], b"ok")


def shown(response: Response) -> tuple[int, list[tuple[str, str]], bytes | None]:
    return response.status, response.headers.items(), response.body


async def test_hooks_plain_and_async_change_messages(path: Path) -> None:
    text = """
import trio
import trio.testing
def request(flow, request):
    flow.state["path"] = request.path
    if request.path == "/own":
        from mitml4.hooks import Response
        return Response(404, {"X-A": "1"}, "gone")
async def response(flow, request, response):
    await trio.sleep(0)
    response.headers["A"] = flow.state["path"]
    response.status_code, response.content = 201, response.content * 2
async def message(flow, message):
    message.text = message.text.upper() + message.request.path
def data(flow, direction, data):
    return data + direction.encode()
"""
    async with running(path, text) as lab:
        assert shown(await lab.get("/x")) == (201, [("A", "/x")], b"okok")
        own = await lab.get("/own")
        assert (own.status, own.body, own.headers["x-a"]) == (404, b"gone", "1")
        assert own.headers["content-type"] == "text/plain; charset=utf-8"
        message = Message(direction="up", is_text=True, content=b"hello")
        request = Request(
            version="HTTP/1.1", method="GET", scheme="http", authority="a.test", target="/ws"
        )
        await lab.script.message(lab.flow(), request, message)
        assert message.content == b"HELLO/ws"
        editor = lab.script.data(lab.flow(), "down")
        assert editor
        assert await editor.feed(b"x") == b"xdown"
        assert [each.what for each in lab.done] == [
            "changed status, headers, content", "answered", "changed content", "changed data"
        ]  # fmt: skip
        assert {each.hook for each in lab.done} == {
            f"hooks.py: {hook}" for hook in ("request", "response", "message", "data")
        }


async def test_reading_everything_changes_nothing(path: Path) -> None:
    text = """
def request(flow, request):
    request.url, request.host, request.port, request.path, dict(request.query), request.text
    dict(request.form), dict(request.cookies), request.headers.items(), flow.stack, flow.sni
def response(flow, request, response):
    response.text, response.content, dict(response.cookies), response.headers.get("a")
"""
    async with running(path, text) as lab:
        assert shown(await lab.get()) == UNCHANGED
        assert lab.done == []
        assert lab.notes == []


BAD = {
    "raises": ("raise ValueError('no')", "exception", "ValueError: no"),
    "exits": ("raise SystemExit(3)", "exception", "SystemExit: 3"),
    "interrupts": ("raise KeyboardInterrupt", "exception", "KeyboardInterrupt"),
    "an error without text": (
        "class E(Exception):\n        def __str__(self): raise self\n    raise E",
        "exception",
        "E",
    ),
    "ends its process": ("import os; os._exit(0)", "ended", "its process has ended"),
    "kills its process": ("import os; os.kill(os.getpid(), 9)", "ended", "its process has ended"),
    "closes its sockets": ("import os; os.closerange(3, 99)", "ended", ""),
    "allocates": ("bytearray(1 << 40)", "exception", "MemoryError"),
    "fills its memory": (
        "a = [bytes(1 << 20) for _ in range(1 << 20)]",
        "exception",
        "MemoryError",
    ),
    "returns nonsense": ("return 5", "exception", "returns nothing, not int"),
    "sets nonsense": ("response.content = 5", "exception", "content is bytes, not int"),
    "splits a header": ("response.headers['a'] = 'b\\r\\nc: d'", "exception", "CR, LF or NUL"),
    "makes a pseudo-header": ("response.headers.add(':status', '1')", "refused", ":status"),
    "sets a status": ("response.status_code = 100", "exception", "100 is no status"),
    "takes the content away": ("response.status_code = 204", "refused", "cannot become 204"),
    "grows": ("response.content *= 1 << 17", "refused", "--edit-limit"),
    "grows to more than is read": ("response.content *= 1 << 20", "exception", "far above"),
    "writes nonsense": (
        "import os; os.write(int(__import__('sys').orig_argv[-5]), bytes(1 << 12))",
        "ended",
        "nonsense",
    ),
    "has deep details": (
        "x = []\n    for _ in range(10**5): x = [x]\n    response.reason = x",
        "exception",
        "RecursionError",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_hook_that_fails_leaves_the_traffic_as_it_was(path: Path, name: str) -> None:
    body, what, reason = BAD[name]
    text = f"""
def response(flow, request, response):
    if request.path == "/good":
        response.content = b"good"
        return
    response.headers["X"] = "never seen"
    {body}
"""
    async with running(path, text) as lab:
        for _ in range(2):
            assert shown(await lab.get()) == UNCHANGED
        assert lab.failed == [what] * 2
        (failed, _) = lab.done
        assert reason in (failed.reason or "")
        assert len([note for note in lab.notes if f"({what};" in note]) == 1
        # The script goes on, in another process if need be.
        assert (await lab.get("/good")).body == b"good"


LOOPS = {
    "plain": "def request(flow, request):\n    while request.path == '/': pass",
    "without signals": (
        "import re\ndef request(flow, request):\n"
        "    if request.path == '/': re.match('(a*)*b', 'a' * 99)"
    ),
    "uninterruptible": (
        "import trio\nasync def request(flow, request):\n    while request.path == '/':\n"
        "        with trio.CancelScope(shield=True): await trio.sleep(0)"
    ),
    "asleep": "import trio\nasync def request(flow, request):\n"
    "    if request.path == '/': await trio.sleep_forever()",
}


@pytest.mark.parametrize("name", LOOPS)
async def test_a_hook_that_does_not_end_is_ended(path: Path, name: str) -> None:
    async with running(path, LOOPS[name], timeout_s=0.5) as lab:
        assert shown(await lab.get()) == UNCHANGED
        assert lab.failed == ["timeout"]
        lab.script._timeout_s = 30.0  # a busy machine starts another process slowly
        assert shown(await lab.get("/other")) == UNCHANGED
        assert lab.failed == ["timeout"]


async def test_many_flows_are_asked_about_at_once(path: Path) -> None:
    text = """
import trio
import trio.testing
waiting, event = [], trio.Event()
async def request(flow, request):
    waiting.append(flow)
    if len(waiting) == 100: event.set()
    await event.wait()
    request.headers["N"] = str(flow.number)
"""
    async with running(path, text) as lab:

        async def one(number: int) -> None:
            await lab.get(flow=lab.flow(number))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
        assert [each.what for each in lab.done] == ["changed headers"] * 100


async def test_thousands_of_questions_do_not_make_a_script_late(path: Path) -> None:
    text = """
import time
def request(flow, request):
    time.sleep(0.0025)
    request.headers["N"] = str(flow.number)
"""
    # All take longer than one may; a pause of the machine is shorter.
    async with running(path, text, timeout_s=4) as lab:
        async with trio.open_nursery() as nursery:
            for number in range(2000):
                nursery.start_soon(partial(lab.get, flow=lab.flow(number)))
        assert [each.what for each in lab.done] == ["changed headers"] * 2000


async def test_a_script_without_its_supervisor_ends(path: Path) -> None:
    text = """
import os
def request(flow, request):
    if request.path == "/kill": os.kill(os.getppid(), 9); os.read(0, 1)
"""
    async with running(path, text) as lab:
        assert shown(await lab.get("/kill")) == UNCHANGED
        await lab.until(lambda: lab.script._is_orphan and lab.script._runner is None)
        with trio.fail_after(lab.script._timeout_s / 2):
            assert shown(await lab.get()) == UNCHANGED
        assert (lab.done[-1].reason, lab.failed[-1]) == ("the script does not run", "ended")
        assert "hooks.py: the process that starts it has ended" in lab.notes


async def test_a_flood_of_prints_does_not_fill_the_memory(path: Path) -> None:
    text = """
def request(flow, request):
    if request.path == "/flood":
        while True: print("x" * 100)
"""
    async with running(path, text, timeout_s=0.5) as lab:
        await lab.get("/flood")
        assert lab.failed == ["timeout"]
        assert len(lab.notes) < 5000


async def test_what_processes_start_is_ended_with_them(path: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = f"""
import os, sys, time
def request(flow, request):
    pid = os.fork()
    if not pid:
        os.setsid()
        if os.fork(): os._exit(0)
        open({str(pids)!r}, "a").write(f"{{os.getpid()}}\\n")
        time.sleep(1000)
    os.waitpid(pid, 0)
    while not os.path.exists({str(pids)!r}): time.sleep(0.01)
    print("hello\\x1b[31m"); print("world", file=sys.stderr)
"""
    async with running(path, text) as lab:
        await lab.get()
        await lab.until(lambda: bool(pids.read_text().endswith("\n")))
    assert lab.notes == ["hooks.py: hello\\x1b[31m", "hooks.py: world"]
    with trio.fail_after(30):
        while any(map(is_alive, map(int, pids.read_text().split()))):  # noqa: ASYNC110
            await trio.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def has_last(notes: list[str], text: str) -> bool:
    return bool(notes) and text in notes[-1]


SETS = "def response(flow, request, response):\n    response.headers['V'] = '{}'\n"


async def test_a_changed_file_is_read_again_and_a_broken_one_is_not(path: Path) -> None:
    async with running(path, SETS.format(1)) as lab:
        assert (await lab.get()).headers["v"] == "1"
        for text, note in (
            ("def response(:", f"{path}:1:14: invalid syntax; the script stays as it was"),
            ("x = 1", "there is no hook: none of request, response"),
            ("import sys; sys.exit()", f"{path}:1: SystemExit; the script stays as it was"),
            (SETS.format(2) + "match = 'nope:'", "match: there is no word nope:"),
        ):
            write(path.with_suffix(".new"), text)
            path.with_suffix(".new").rename(path)
            await lab.until(partial(has_last, lab.notes, note))
            assert (await lab.get()).headers["v"] == "1"
        write(path, SETS.format(22))
        await lab.until(lambda: lab.notes[-1].endswith("read again"))
        assert (await lab.get()).headers["v"] == "22"
        assert lab.failed == []


NO_SCRIPTS = {
    "syntax": ("def", ":1:4: invalid syntax"),
    "an error": ("\n1 / 0", ":2: ZeroDivisionError: division by zero"),
    "exit": ("import os; os._exit(1)", "its process has ended at its start"),
    "no hook": ("request = 5", "there is no hook"),
    "match": ("match = 'port:x'\ndef open(flow): pass", "match: "),
    "match is no text": ("match = 5\ndef open(flow): pass", "match is a filter expression"),
    "bodies is no flag": ("bodies = 'no'\ndef request(flow, request): pass", "bodies is True or"),
    "too few parameters": ("def request(flow): pass", "called as request(flow, request)"),
    "too many": ("def close(flow, layer): pass", "called as close(flow)"),
    "a generator": ("def request(flow, request):\n    yield", "request is a generator"),
    "an async one": ("async def open(flow):\n    yield", "open is a generator"),
    "not UTF-8": ("x = '\udcff'\ndef open(flow): pass", "utf-8"),
}


@pytest.mark.parametrize("name", NO_SCRIPTS)
async def test_a_script_that_cannot_be_used_is_said_with_its_place(path: Path, name: str) -> None:
    text, message = NO_SCRIPTS[name]
    write(path, text)
    with pytest.raises(UsageError) as raised:
        Script(path, timeout_s=5.0, limit=LIMIT, publish=print)
    assert message.lower() in raised.value.message.lower()
    assert str(path) in raised.value.message


async def test_methods_and_partial_functions_are_hooks_and_what_is_no_function_is_none(
    path: Path,
) -> None:
    text = """
from functools import partial
from io import open
from queue import Queue as message
data = 5
class Rules:
    def response(self, flow, request, response): response.headers["M"] = "1"
def add(name, flow, request): request.headers[name] = "1"
response = Rules().response
request = partial(add, "P")
"""
    async with running(path, text) as lab:
        assert shown(await lab.get()) == (200, [("A", "b"), ("M", "1")], b"ok")
        assert [each.what for each in lab.done] == ["changed headers"] * 2
        assert lab.script.info.has("request", "response")
        assert not lab.script.info.has("open", "message", "data")


async def test_each_kind_of_failure_is_said_once(path: Path) -> None:
    text = """
def request(flow, request):
    if request.path == "/a": {}[request.path]
    if request.path == "/b": int(request.path)
    {}[request.path]
"""
    async with running(path, text) as lab:
        for target in ("/a", "/a", "/b", "/b", "/c", "/d"):
            await lab.get(target)
        said = "hooks.py: request: {}:{}: {} (exception; said once, the events have each)"
        assert lab.notes == [
            said.format(path, 3, "KeyError: '/a'"),
            said.format(path, 4, "ValueError: invalid literal for int() with base 10: '/b'"),
            said.format(path, 5, "KeyError: '/c'"),
        ]
        assert lab.failed == ["exception"] * 6


async def test_content_far_above_the_limit_is_refused_and_the_process_stays(path: Path) -> None:
    text = f"""
from mitml4.hooks import Response
count = 0
def request(flow, request):
    global count
    count += 1
    if request.path == "/": return Response(200, {{}}, b"x" * ({LIMIT} * 5))
    request.headers["N"] = str(count)
"""
    async with running(path, text) as lab:
        assert shown(await lab.get()) == UNCHANGED
        assert lab.failed == ["exception"]
        assert "far above --edit-limit" in lab.notes[-1]
        runner = lab.script._runner
        await lab.get("/other")
        assert lab.script._runner is runner


async def test_only_what_matches_is_asked_about(path: Path) -> None:
    text = SETS.format(1) + "match = 'host:a.test path:/x status:2xx'"
    async with running(path, text) as lab:
        flow, other = lab.flow().model, lab.flow(name="b.test").model
        assert lab.script.may_match(flow, is_named=True)
        assert not lab.script.may_match(other, is_named=True)
        assert not lab.script.may_answer(flow, is_named=True)
        assert not lab.script.edits_data(flow, is_named=True)
        assert "v" in (await lab.get("/x")).headers
        assert "v" not in (await lab.get("/y")).headers


async def test_what_matches_is_what_the_client_has_sent(path: Path) -> None:
    text = (
        SETS.format(1)
        + """
match = "path:/x method:GET"
def request(flow, request):
    request.path = "/y"
    request.method = "PUT"
"""
    )
    async with running(path, text) as lab:
        assert "v" in (await lab.get("/x")).headers
        assert "v" not in (await lab.get("/y")).headers


async def test_the_ends_of_flows_are_told(path: Path) -> None:
    text = """
def open(flow): flow.state["x"] = 1; 1 / (flow.number - 2)
def close(flow): print(flow.number, flow.state["x"], flow.client)
"""
    async with running(path, text) as lab:
        for number in (1, 2):
            lab.script.publish(opened(number))
            await lab.until(lambda: not lab.script._waiting)
            lab.script.publish(closed(number))
    assert [note for note in lab.notes if "Zero" not in note] == [
        "hooks.py: 1 1 192.0.2.1:50000", "hooks.py: 2 1 192.0.2.1:50000"
    ]  # fmt: skip
    (error,) = lab.errors
    assert (error.flow, error.what, error.hook) == (2, "exception", "hooks.py: open")


def opened(number: int) -> FlowOpen:
    return FlowOpen(flow=number, client=CLIENT, destination=SERVER, interface=None, name="a.test")


def closed(number: int) -> FlowClose:
    return FlowClose(
        flow=number, stack=(), reason="closed", bytes_up=0, bytes_down=0, duration_s=0.0
    )


async def test_a_script_that_is_too_slow_hears_nothing_of_more_connections(
    path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("mitml4.session.editors.script._MAX_WAITING", 2)
    text = """
def open(flow):
    print("open", flow.number)
def close(flow):
    print("close", flow.number)
"""
    async with running(path, text) as lab:
        for number in (1, 2, 3, 4):
            lab.script.publish(opened(number))
        for number in (1, 3):
            lab.script.publish(closed(number))
    assert sorted(note for note in lab.notes if " open " in note or " close " in note) == [
        "hooks.py: close 1", "hooks.py: open 1", "hooks.py: open 2"
    ]  # fmt: skip
    assert [(error.flow, error.what, error.hook) for error in lab.errors] == [
        (3, "timeout", "hooks.py: open"), (4, "timeout", "hooks.py: open")
    ]  # fmt: skip
