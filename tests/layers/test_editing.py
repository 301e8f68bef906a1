"""HTTP/1 through an editor: what is not changed is sent as it came, and what is changed is framed
anew."""

from __future__ import annotations

import gc
import gzip
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakSet

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from trio.testing import wait_all_tasks_blocked

from mitml4.edit.parser import parse_rules
from mitml4.edit.rules import RuleEditor
from mitml4.events import LayerEvent, RuleApplied
from mitml4.net.memory import MemoryStream
from mitml4.net.stream import StreamTruncated
from mitml4.protocols.http.events import HttpRequest, HttpResponse
from mitml4.tls.ca import CertificateAuthority
from tests.layers.conftest import EDIT_LIMIT, HELLO, End, FlowLab, Outcomes, Script, note_sent

GET = b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REPLACE = """
[[rule]]
replace = { in = "response.body", regex = "ok|secret", with = "replaced" }
"""
IDENTITY = """
[[rule]]
replace = [
    { in = "request.body", regex = "never there", with = "" },
    { in = "response.body", regex = "never there", with = "" },
    { in = "request.headers", regex = "never there", with = "" },
    { in = "message", regex = "never there", with = "" },
    { in = "data", regex = "never there", with = "" },
]
"""


def rules(text: str) -> RuleEditor:
    return RuleEditor(rules=parse_rules("r.toml", text.encode()), limit=EDIT_LIMIT)


def says(*steps: tuple[str, bytes], split: bool = False) -> Script:
    """A far end that sends and expects these bytes; `split`: it sends them one by one."""

    async def script(end: End) -> None:
        for what, data in steps:
            if what == "expect":
                await end.expect(data)
            elif what == "eof":
                await end.send_eof()
            elif what == "expect eof":
                await end.expect_eof()
            elif split:
                for at in range(len(data)):
                    await end.send(data[at : at + 1])
            else:
                await end.send(data)

    return script


def conversation(
    *exchanges: tuple[bytes, bytes, bytes, bytes],
) -> Callable[[bool], tuple[Script, Script]]:
    """Both far ends: what the client sends, the server gets, the server sends, the client gets."""

    def scripts(split: bool) -> tuple[Script, Script]:
        client: list[tuple[str, bytes]] = []
        server: list[tuple[str, bytes]] = []
        for sent, got, answered, received in exchanges:
            client += [("send", sent), ("expect", received)]
            server += [("expect", got), ("send", answered)]
        client += [("eof", b""), ("expect eof", b"")]
        server += [("expect eof", b""), ("eof", b"")]
        return says(*client, split=split), says(*server, split=split)

    return scripts


def run(lab: FlowLab, editor: RuleEditor, client: Script, server: Script | None) -> Outcomes:
    out = lab.run(client, server, editor=editor)
    out.check()
    return out


def met_all(out: Outcomes) -> bool:
    return set(out.met.values()) == {"all"}


def unchanged(sent: bytes, answered: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    return sent, sent, answered, answered


GZIPPED = gzip.compress(b"a secret", mtime=0)
BOMB = gzip.compress(bytes(100 * EDIT_LIMIT), mtime=0)
AS_IT_CAME = {
    "a request": [unchanged(GET, OK)],
    "several": [unchanged(GET, OK), unchanged(GET, OK)],
    "odd spelling": [
        unchanged(
            b"GET  /a b HTTP/1.1\r\nhOST:a.test\r\nX:  1 \r\n folded\r\nY :2\n\r\n".replace(
                b"GET  ", b"GET "
            ),
            b"HTTP/1.1  200\r\ncontent-LENGTH:2\r\n\r\nok",
        )
    ],
    "bare line feeds": [
        unchanged(b"\r\nGET /a HTTP/1.1\nHost: a\n\n", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n")
    ],
    "hosts that are none, and any status": [
        unchanged(
            b"GET /a HTTP/1.1\r\nHost: %b\r\n\r\n" % host,
            b"HTTP/1.1 999 Denied\r\nContent-Length: 0\r\n\r\n",
        )
        for host in (b"::1", b"a:b", b"[::1", b"a:99999", b"", b"a b")
    ],
    "a body": [
        unchanged(b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde", OK),
    ],
    "chunks, extensions and trailers": [
        unchanged(
            b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"003;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\nX: y\r\n\r\n",
        ),
        unchanged(GET, OK),
    ],
    "HEAD and 304": [
        unchanged(b"HEAD /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        unchanged(GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
        unchanged(GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        unchanged(GET, OK),
    ],
    "early hints": [
        unchanged(GET, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK),
        unchanged(GET, OK),
    ],
    "a coding": [
        unchanged(
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
            % (len(GZIPPED), GZIPPED),
        )
    ],
    "a coding that lies": [
        unchanged(
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
        )
    ],
    "a body that unfolds to more than may be held": [
        unchanged(
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
            % (len(BOMB), BOMB),
        )
    ],
    "no HTTP": [unchanged(b"\x00\x01\x02binary", b"\xff\xfe")],
    "CONNECT": [
        unchanged(b"CONNECT b.test:80 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
        unchanged(GET, OK),
    ],
    "an upgrade": [
        unchanged(
            b"GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\n\r\n",
        ),
        unchanged(b"\x00anything", b"\xffelse"),
    ],
}


@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", AS_IT_CAME)
def test_what_is_not_changed_is_sent_as_it_came(flow_lab: FlowLab, name: str, split: bool) -> None:
    client, server = conversation(*AS_IT_CAME[name])(split)
    out = run(flow_lab, rules(IDENTITY), client, server)
    assert met_all(out), out.met
    assert out.close.reason == "closed"


def test_pipelined_requests_are_answered_in_their_order(flow_lab: FlowLab) -> None:
    others = [OK.replace(b"ok", b"%02d" % number) for number in range(4)]
    client = says(
        ("send", GET * 4), ("expect", b"".join(others)), ("eof", b""), ("expect eof", b"")
    )
    steps = [step for each in others for step in (("expect", GET), ("send", each))]
    server = says(*steps, ("expect eof", b""), ("eof", b""))
    assert met_all(run(flow_lab, rules(IDENTITY), client, server))


def changed(body: bytes, *, head: bytes = b"Content-Length: 8") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body


CHANGED = {
    "a length": (OK, changed(b"replaced")),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\no\r\n1\r\nk\r\n0\r\nT: 1\r\n\r\n",
        changed(b"8\r\nreplaced\r\n0\r\nT: 1\r\n\r\n", head=b"Transfer-Encoding: chunked"),
    ),
}


@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_body_is_framed_anew(flow_lab: FlowLab, name: str, split: bool) -> None:
    answered, received = CHANGED[name]
    client, server = conversation((GET, GET, answered, received), unchanged(GET, OK[:-2] + b"no"))(
        split
    )
    out = run(flow_lab, rules(REPLACE), client, server)
    assert met_all(out), out.met
    (applied,) = (event for event in out.events if isinstance(event, RuleApplied))
    assert (applied.what, applied.rule, applied.stream) == ("replace in response.body", 1, 1)


def test_a_coding_is_undone_and_done_again(flow_lab: FlowLab) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    met = []

    async def client(end: End) -> None:
        await end.send(GET)
        got = await end.receive(1000)
        start, _, body = got.partition(b"\r\n\r\n")
        assert start.endswith(b"Content-Length: %d" % len(body))
        met.append(gzip.decompress(body))

    server = says(("expect", GET), ("send", head % len(GZIPPED) + GZIPPED), ("eof", b""))
    run(flow_lab, rules(REPLACE), client, server)
    assert met == [b"a replaced"]


def test_a_body_until_the_end_stays_one(flow_lab: FlowLab) -> None:
    client = says(
        ("send", GET), ("expect", b"HTTP/1.1 200 OK\r\n\r\na replaced"), ("expect eof", b"")
    )
    server = says(("expect", GET), ("send", b"HTTP/1.1 200 OK\r\n\r\na secret"), ("eof", b""))
    out = run(flow_lab, rules(REPLACE), client, server)
    assert out.met["client"] == "all"


def test_a_body_above_the_limit_streams_by_and_that_is_said_once(flow_lab: FlowLab) -> None:
    body = b"ok" * EDIT_LIMIT
    large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    client, server = conversation(unchanged(GET, large), unchanged(GET, large))(False)
    out = run(flow_lab, rules(REPLACE), client, server)
    assert met_all(out)
    (applied,) = (event for event in out.events if isinstance(event, RuleApplied))
    assert applied.what == "unedited"


def test_a_body_that_is_cut_off_goes_on_as_far_as_it_came(flow_lab: FlowLab) -> None:
    part = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\na secret"
    client = says(("send", GET), ("expect", part), ("expect eof", b""), ("eof", b""))
    server = says(("expect", GET), ("send", part), ("eof", b""), ("expect eof", b""))
    out = run(flow_lab, rules(REPLACE), client, server)
    assert met_all(out), out.met
    (applied,) = (event for event in out.events if isinstance(event, RuleApplied))
    assert (applied.what, applied.reason) == ("unedited", "a body that was cut off")


def test_an_endless_body_is_not_held_back(flow_lab: FlowLab) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    client = says(("send", GET), ("expect", head + b"data: ok\n\n"), ("eof", b""))
    server = says(("expect", GET), ("send", head + b"data: ok\n\n"), ("expect eof", b""))
    out = run(flow_lab, rules(REPLACE), client, server)
    assert met_all(out), out.met


def test_a_body_on_demand_is_demanded_for_the_editor(flow_lab: FlowLab) -> None:
    head = b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    editor = rules('[[rule]]\nreplace = { in = "request.body", regex = "ok", with = "more" }')
    proceed = b"HTTP/1.1 100 Continue\r\n\r\n"
    client = says(("send", head), ("expect", proceed), ("send", b"ok"), ("expect", OK))
    server = says(
        ("expect", head.replace(b"Length: 2", b"Length: 4") + b"more"), ("send", proceed + OK)
    )
    assert met_all(run(flow_lab, editor, client, server))


def test_a_request_whose_body_is_not_demanded_is_followed_by_another(flow_lab: FlowLab) -> None:
    head = b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    refused = b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"
    client, server = conversation(unchanged(head, refused), unchanged(GET, OK[:-2] + b"no"))(False)
    assert met_all(run(flow_lab, rules(REPLACE), client, server))


def test_a_rule_answers_instead_of_a_server_that_is_not_there(flow_lab: FlowLab) -> None:
    editor = rules(
        '[[rule]]\nmatch = "path:/a"\n'
        'respond = { status = 503, headers = { "X-A" = "b" }, body = "down" }'
    )
    answer = b"HTTP/1.1 503 Service Unavailable\r\nX-A: b\r\nContent-Length: 4\r\n\r\ndown"
    client = says(("send", GET), ("expect", answer), ("send", GET), ("expect", answer))
    out = run(flow_lab, editor, client, None)
    assert out.met == {"client": "all"}
    contents = [event.content for event in out.events if isinstance(event, LayerEvent)]
    assert [each.status for each in contents if isinstance(each, HttpResponse)] == [503, 503]
    assert len([each for each in contents if isinstance(each, HttpRequest)]) == 2


def test_the_server_is_connected_to_for_what_no_rule_answers(flow_lab: FlowLab) -> None:
    editor = rules('[[rule]]\nmatch = "path:/no"\nrespond = { status = 503 }')
    client, server = conversation(unchanged(GET, OK))(False)
    out = run(flow_lab, editor, client, server)
    assert met_all(out)
    gone = run(flow_lab, editor, says(("send", GET), ("expect", OK)), None)
    assert gone.met == {"client": "reset"}
    silent = run(flow_lab, editor, says(("expect", b"hi")), says(("send", b"hi")))
    assert met_all(silent)


def test_a_request_goes_to_another_server(flow_lab: FlowLab) -> None:
    editor = rules('[[rule]]\nmatch = "path:/a"\nto = "http://192.0.2.9:8000/base"')
    seen = b"GET /base/a HTTP/1.1\r\nHost: 192.0.2.9:8000\r\n\r\n"
    elsewhere = says(("expect", seen), ("send", OK))
    client = says(("send", GET), ("expect", OK), ("send", b"GET /own HTTP/1.1\r\n\r\n"))
    server = says(("expect", b"GET /own HTTP/1.1\r\n\r\n"), ("eof", b""))
    out = flow_lab.run(client, server, editor=editor, elsewhere=elsewhere)
    out.check()
    assert out.met == {"client": "all", "server": "all", "elsewhere": "all"}


def test_a_rule_that_changes_the_path_also_edits_the_response(flow_lab: FlowLab) -> None:
    """What it matches is the request as the client has sent it."""
    editor = rules("""
[[rule]]
match = "path:/a host:a.test"
to = "http://192.0.2.9:8000/base"
replace = [
    { in = "response.body", regex = "ok", with = "no" },
    { in = "response.headers", regex = "Length", with = "LENGTH" },
]
""")
    edited = b"HTTP/1.1 200 OK\r\nContent-LENGTH: 2\r\n\r\nno"
    seen = b"GET /base/a HTTP/1.1\r\nHost: 192.0.2.9:8000\r\n\r\n"
    client = says(("send", GET), ("expect", edited), ("eof", b""))
    elsewhere = says(("expect", seen), ("send", OK))
    out = flow_lab.run(client, says(("eof", b"")), editor=editor, elsewhere=elsewhere)
    assert out.met["client"] == out.met["elsewhere"] == "all"


@pytest.mark.parametrize("name", ["a length", "chunks"])
def test_a_request_that_comes_in_one_piece_leaves_in_one(flow_lab: FlowLab, name: str) -> None:
    """Whether its body is held back, changed, or not looked at: a server may read once."""
    framed = {
        "a length": b"Content-Length: 2\r\n\r\nok",
        "chunks": b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    }[name]
    sent = b"POST /a HTTP/1.1\r\nHost: a.test\r\n" + framed
    for text, got in (
        (IDENTITY, sent),
        (REPLACE, sent),
        (
            REPLACE.replace("response.", "request.").replace("replaced", "no"),
            b"no".join(sent.rsplit(b"ok", 1)),
        ),
    ):
        pieces: list[bytes] = []

        async def server(end: End, pieces: list[bytes] = pieces, size: int = len(got)) -> None:
            assert isinstance(end.stream, MemoryStream)
            note_sent(end.stream.far, pieces)
            await end.receive(size)
            await end.send(OK)
            await end.receive_some()

        answered = OK.replace(b"2\r\n\r\nok", b"8\r\n\r\nreplaced") if text == REPLACE else OK
        client = says(("send", sent), ("expect", answered), ("eof", b""))
        out = run(flow_lab, rules(text), client, server)
        assert out.met["client"] == "all"
        assert pieces == [got]


def test_a_server_that_has_no_address_is_told_as_any_other(flow_lab: FlowLab) -> None:
    editor = rules('[[rule]]\nmatch = "path:/a"\nto = "http://a..b:8000"')
    client = says(("send", GET), ("expect", b"HTTP/1.1 502 "))
    out = run(flow_lab, editor, client, says())
    assert out.met["client"] == "all"


BROKEN_ANSWERS = {
    "a reset": (b"", True),
    "an end": (b"", False),
    "a reset within its head": (b"HTTP/1.1 200 OK\r\nX", True),
    "an end within its head": (b"HTTP/1.1 200 OK\r\nX", False),
    "a reset after a word": (b"HTTP/1.1 103 Early Hints\r\n\r\n", True),
    "no HTTP": (b"nonsense\r\n\r\n", False),
    "a head without an end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3 * EDIT_LIMIT, False),
    "no chunk, in a body that is held": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        False,
    ),
    "a reset in a body that is held": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", True),
    "an end in a body that is held": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", False),
}


@pytest.mark.parametrize("sent", [GET, b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"])
@pytest.mark.parametrize("name", BROKEN_ANSWERS)
def test_what_another_server_does_not_answer_is_told_and_the_connection_goes_on(
    flow_lab: FlowLab, name: str, sent: bytes
) -> None:
    answered, resets = BROKEN_ANSWERS[name]
    editor = rules(f'{REPLACE}\nmatch = "path:/a"\nto = "http://192.0.2.9:8000"')

    async def elsewhere(end: End) -> None:
        await end.receive_some()
        await end.send(answered)
        assert isinstance(end.stream, MemoryStream)
        end.stream.abort() if resets else await end.send_eof()

    async def client(end: End) -> None:
        await end.send(sent)
        if b"103" in answered:
            await end.expect(answered)
        head = await end.receive_some()
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b"Connection: close" not in head
        await end.send(GET.replace(b"/a", b"/own"))
        await end.expect(OK.replace(b"ok", b"no"))
        await end.send_eof()
        await end.expect_eof()

    server = says(
        ("expect", GET.replace(b"/a", b"/own")), ("send", OK.replace(b"ok", b"no")), ("eof", b"")
    )
    out = flow_lab.run(client, server, editor=editor, elsewhere=elsewhere)
    out.check()
    assert (out.met["client"], out.met["server"]) == ("all", "all")


def test_a_reset_that_sending_meets_is_no_end_of_a_response(flow_lab: FlowLab) -> None:
    head, begin = b"HTTP/1.1 200 OK\r\n\r\n", b"its begin"
    asked = b"POST /a HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc"
    is_reset = trio.Event()

    async def server(end: End) -> None:
        await end.expect(asked)
        await end.send(head + begin)
        await wait_all_tasks_blocked()
        assert isinstance(end.stream, MemoryStream)
        end.stream.abort()
        is_reset.set()

    async def client(end: End) -> None:
        await end.send(asked)
        await end.expect(head)
        await is_reset.wait()
        await end.send(b"def")
        await end.expect(begin)
        await end.expect_eof()

    out = flow_lab.run(client, server, editor=rules('[[rule]]\nrate = "1B/s"'))
    out.check()
    assert out.met["client"] == "reset"


def test_an_answer_to_a_request_that_is_still_held_reaches_the_client(flow_lab: FlowLab) -> None:
    asked = b"POST /a HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc"
    answer = b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"
    is_held = trio.Event()

    async def server(end: End) -> None:
        await is_held.wait()
        await end.send(answer)
        assert isinstance(end.stream, MemoryStream)
        end.stream.abort()

    async def client(end: End) -> None:
        await end.send(asked)
        await wait_all_tasks_blocked()
        is_held.set()
        await wait_all_tasks_blocked()
        await end.send(b"def")
        await end.expect(answer)

    editor = rules('[[rule]]\nreplace = { in = "request.body", regex = "never", with = "" }')
    out = flow_lab.run(client, server, editor=editor)
    out.check()
    assert out.met["client"] == "all"


@pytest.mark.parametrize("ends", ["a reset", "no address"])
def test_a_client_that_waits_before_its_body_is_told_too(flow_lab: FlowLab, ends: str) -> None:
    host = "a..b" if ends == "no address" else "192.0.2.9"
    editor = rules(f'[[rule]]\nto = "http://{host}:8000"')

    async def elsewhere(end: End) -> None:
        await end.receive_some()
        assert isinstance(end.stream, MemoryStream)
        end.stream.abort()

    async def client(end: End) -> None:
        await end.send(b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await end.receive_some()).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        while await end.receive_some():
            pass

    out = flow_lab.run(client, says(), editor=editor, elsewhere=elsewhere)
    out.check()
    assert out.met["client"] == "all"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_connections_to_other_servers_are_let_go_when_they_are_over(
    flow_lab: FlowLab, scheme: str
) -> None:
    """A client may send any number of requests on one connection."""
    editor = rules(f'[[rule]]\nmatch = "path:/a"\nto = "{scheme}://192.0.2.9:8000"')
    near_ends: WeakSet[MemoryStream] = WeakSet()
    answer = OK if scheme == "http" else b"HTTP/1.1 502 Bad Gateway\r\n"

    async def client(end: End) -> None:
        for _ in range(4):
            await end.send(GET)
            await end.expect(answer)
            await end.receive_some() if scheme == "https" else None
        await wait_all_tasks_blocked()
        gc.collect()
        assert [stream.is_closed for stream in near_ends] == [True]

    async def elsewhere(end: End) -> None:
        assert isinstance(end.stream, MemoryStream)
        near_ends.add(end.stream.far)
        await end.receive_some()
        await end.send(OK)  # which is no TLS
        await end.expect_eof()

    out = flow_lab.run(client, says(), editor=editor, elsewhere=elsewhere)
    assert out.met["client"] == "all"


ENDINGS = {"reset": "reset", "close": "end", "hang": "all"}


@pytest.mark.parametrize("key", ENDINGS)
def test_a_rule_ends_the_connection(flow_lab: FlowLab, key: str) -> None:
    async def client(end: End) -> None:
        await end.send(GET)
        if key == "hang":
            return
        await end.expect_eof()
        raise AssertionError("closed")

    async def closing(end: End) -> None:
        await end.send(GET)
        await end.expect_eof()

    out = flow_lab.run(
        closing if key == "close" else client,
        says(("expect eof", b"")),
        editor=rules(f'[[rule]]\nmatch = "path:/a"\n{key} = true'),
        at=10**9,
    )
    out.check()
    assert out.met["client"] == ("all" if key == "close" else ENDINGS[key])


def test_a_rule_for_responses_ends_the_connection_after_the_request(flow_lab: FlowLab) -> None:
    editor = rules('[[rule]]\nmatch = "status:200"\nreset = true')
    out = flow_lab.run(
        says(("send", GET), ("expect", b"x")),
        says(("expect", GET), ("send", OK)),
        editor=editor,
        at=10**9,
    )
    assert out.met["client"] == "reset"


def test_delays_and_rates_are_kept(flow_lab: FlowLab) -> None:
    took = []

    async def client(end: End) -> None:
        began = trio.current_time()
        await end.send(GET)
        await end.expect(OK)
        took.append(trio.current_time() - began)

    editor = rules('[[rule]]\ndelay = "1500ms"\nrate = "1B/s"')
    run(flow_lab, editor, client, says(("expect", GET), ("send", OK), ("expect eof", b"")))
    assert took == [2.5]


def test_headers_are_set_and_removed_where_they_stand(flow_lab: FlowLab) -> None:
    editor = rules("""
[[rule]]
set-request-headers = { "x-a" = "2", "X-New" = "3" }
remove-request-headers = ["cookie"]
set-response-headers = { "Server" = "s" }
replace = { in = "response.headers", regex = "(?i)^date: .*", with = "Date: now" }
""")
    sent = b"GET /a HTTP/1.1\r\nhost:x\r\nX-A:  1\r\nCookie: c\r\nx-a: 4\r\n\r\n"
    got = b"GET /a HTTP/1.1\r\nhost:x\r\nX-A: 2\r\nX-New: 3\r\n\r\n"
    answered = b"HTTP/1.1 200 OK\r\ndate: then\r\ncontent-length:0\r\n\r\n"
    received = b"HTTP/1.1 200 OK\r\nDate: now\r\ncontent-length:0\r\nServer: s\r\n\r\n"
    client, server = conversation((sent, got, answered, received))(False)
    assert met_all(run(flow_lab, editor, client, server))


def test_a_flow_that_no_rule_can_match_is_not_touched(flow_lab: FlowLab) -> None:
    editor = rules('[[rule]]\nmatch = "port:81"\nrespond = { status = 503 }')
    assert not any(
        isinstance(event, RuleApplied)
        for event in run(flow_lab, editor, *conversation(unchanged(GET, OK))(False)).events
    )


def test_tls_is_ended_without_a_server(flow_lab: FlowLab) -> None:
    async def client(end: End) -> None:
        await end.start_tls()
        await end.send(GET)
        await end.expect(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    editor = rules('[[rule]]\nmatch = "host:a.test"\nrespond = { status = 503 }')
    out = run(flow_lab, editor, client, None)
    assert out.met == {"client": "all"}, out.events
    assert out.stack == ("tls", "http/1")


async def asking_in_tls(end: End) -> None:
    await end.start_tls()
    await end.send(GET)
    await end.expect(OK)


async def answering_in_tls(end: End) -> None:
    await end.start_tls(as_server=True)
    await end.expect(GET)
    await end.send(OK)


@pytest.mark.parametrize("match", ["host:b.test", "host:a.test path:/no"])
def test_tls_whose_requests_no_rule_answers_has_its_server(flow_lab: FlowLab, match: str) -> None:
    editor = rules(f'[[rule]]\nmatch = "{match}"\nrespond = {{ status = 503 }}')
    out = run(flow_lab, editor, asking_in_tls, answering_in_tls)
    assert met_all(out), (out.met, out.errors)


def test_inside_tls_a_client_may_name_what_is_no_host(flow_lab: FlowLab) -> None:
    hello = replace(HELLO, sni=f"a..{'x' * 64}")

    async def client(end: End) -> None:
        await end.start_tls(hello=hello)
        await end.send(GET)
        await end.expect_eof()

    async def server(end: End) -> None:
        await end.start_tls(as_server=True)
        await end.expect_eof()

    editor = rules('[[rule]]\nmatch = "path:/no"\nrespond = { status = 503 }')
    out = run(flow_lab, editor, client, server)
    assert [(error.side, error.kind) for error in out.errors] == [("server", "certificate")]


def test_inside_tls_a_server_that_does_not_verify_is_told(flow_lab: FlowLab, monkeypatch) -> None:
    other = CertificateAuthority.generate().certificate
    monkeypatch.setattr(flow_lab, "root", other.public_bytes(Encoding.DER))
    editor = rules('[[rule]]\nmatch = "host:a.test path:/no"\nrespond = { status = 503 }')
    out = run(flow_lab, editor, asking_in_tls, answering_in_tls)
    assert out.met == {"client": "reset", "server": "reset"}
    (error,) = out.errors
    assert (error.side, error.stage, error.kind) == ("server", "handshake", "certificate")


def test_a_flow_is_cancelled_and_reset_at_each_step(flow_lab: FlowLab) -> None:
    post = b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"
    client, server = conversation(
        unchanged(post, OK[:-2] + b"no"), unchanged(GET, OK[:-2] + b"xx")
    )(False)
    editor = rules(REPLACE + '\n[[rule]]\nmatch = "path:/no"\nrespond = { status = 503 }')
    steps = flow_lab.run(client, server, editor=editor).steps
    assert steps > 20
    for at in range(1, steps + 1):
        for act in ("cancel", "client", "server"):
            out = flow_lab.run(client, server, editor=editor, at=at, act=act)
            out.check()


DATA = """
[[rule]]
replace = { in = "data", regex = "secret", with = "public" }
"""


@pytest.mark.parametrize(("first", "most_s"), [(b"hello", 1), (b"GET /a", 11)])
def test_what_may_begin_a_request_is_held_back_no_longer_than_that(
    flow_lab: FlowLab, first: bytes, most_s: float
) -> None:
    """Another protocol's first message may look like a method that nobody knows."""
    client = says(("send", first), ("expect", b"and you?"), ("eof", b""))
    server = says(("expect", first), ("send", b"and you?"), ("expect eof", b""), ("eof", b""))
    for text in (DATA, REPLACE):
        out = run(flow_lab, rules(text), client, server)
        assert met_all(out), out.met
        assert most_s - 1 <= out.close.duration_s < most_s


@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
def test_bytes_of_other_protocols_are_replaced(flow_lab: FlowLab, split: bool) -> None:
    client = says(
        ("send", b"\x00\x01 a secret\n"), ("expect", b"\xff a public"), ("eof", b""), split=split
    )
    server = says(
        ("expect", b"\x00\x01 a public\n"), ("send", b"\xff a secret"), ("eof", b""), split=split
    )
    out = run(flow_lab, rules(DATA), client, server)
    assert met_all(out), out.met
    applied = [event for event in out.events if isinstance(event, RuleApplied)]
    assert [each.what for each in applied] == ["replace in data"] * 2


def test_a_part_of_a_match_is_not_held_back_for_ever(flow_lab: FlowLab) -> None:
    client = says(("send", b"\x00 a sec"), ("expect", b"ok"))
    server = says(("expect", b"\x00 a sec"), ("send", b"ok"))
    assert met_all(run(flow_lab, rules(DATA), client, server))


def test_a_server_that_speaks_first_is_edited(flow_lab: FlowLab) -> None:
    client = says(("expect", b"220 public\r\n"), ("send", b"QUIT\r\n"))
    server = says(("send", b"220 secret\r\n"), ("expect", b"QUIT\r\n"))
    assert met_all(run(flow_lab, rules(DATA), client, server))


def test_tls_inside_another_protocol_is_still_intercepted(flow_lab: FlowLab) -> None:
    connect = b"\x04\x01\x01\xbb\xc0\x00\x02\x02\0"
    granted = b"\x00\x5a\x00\x00\x00\x00\x00\x00"

    async def client(end: End) -> None:
        await end.send(connect)
        await end.expect(granted)
        await end.start_tls()
        await end.send(b"\x00 a secret")
        await end.expect(b"\xff a public")
        await end.send_eof()
        await end.expect_eof()

    async def server(end: End) -> None:
        await end.expect(connect)
        await end.send(granted)
        await end.start_tls(as_server=True)
        await end.expect(b"\x00 a public")
        await end.send(b"\xff a secret")
        await end.expect_eof()
        await end.send_eof()

    out = run(flow_lab, rules(DATA), client, server)
    assert met_all(out), (out.met, out.errors)
    assert out.stack[:2] == ("socks4", "tls")


@pytest.mark.parametrize("key", ["reset", "close", "hang"])
def test_a_rule_ends_another_protocol(flow_lab: FlowLab, key: str) -> None:
    async def client(end: End) -> None:
        await end.send(b"\x00\x01")
        if key != "hang":
            await end.expect_eof()

    editor = rules(f"[[rule]]\n{key} = true")
    out = flow_lab.run(client, says(("expect eof", b"")), editor=editor, at=10**9)
    out.check()
    assert out.met["client"] == {"reset": "reset"}.get(key, "all")


WEBSOCKET = (
    b"GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
)


def test_messages_of_a_websocket_are_replaced_and_its_frames_only_paced(flow_lab: FlowLab) -> None:
    ask, accept = WEBSOCKET
    editor = rules(
        '[[rule]]\ndelay = "1s"\n'
        'replace = [{ in = "message", regex = "secret", with = "public!" }, '
        '{ in = "data", regex = "public!", with = "a frame is not data" }]'
    )
    ping, secret, public = b"\x89\x00", b"\x81\x06secret", b"\x81\x07public!"
    fragments = b"\x01\x02se" + ping + b"\x80\x04cret"
    client = says(
        ("send", ask), ("expect", accept + ping + public + ping + public), ("send", b"\x88\x00")
    )
    server = says(
        ("expect", ask), ("send", accept + ping + secret + fragments), ("expect", b"\x88\x00")
    )
    out = run(flow_lab, editor, client, server)
    assert met_all(out), out.met
    assert out.stack == ("http/1", "websocket")
    said = [event.what for event in out.events if isinstance(event, RuleApplied)]
    assert said.count("delay") == 3, said  # the request, and both directions


@pytest.mark.parametrize("is_truncated", [False, True], ids=["close_notify", "FIN alone"])
@pytest.mark.parametrize("side", ["client", "server"])
def test_ends_of_tls_pass_as_they_came(flow_lab: FlowLab, side: str, is_truncated: bool) -> None:
    def far_end(name: str) -> Script:
        async def script(end: End) -> None:
            await end.start_tls(as_server=name == "server")
            if name == "client":
                await end.send(GET)
                await end.expect(OK)
            else:
                await end.expect(GET)
                await end.send(OK)
            if name == side:
                if not is_truncated:
                    await end.send_eof()
                await end.stream.transport.send_eof()
                return
            if is_truncated:
                with pytest.raises(StreamTruncated):
                    await end.receive(1)
            else:
                await end.expect_eof()
            assert await End(end.stream.transport, end.contexts).receive(1) == b""

        return script

    editor = rules(IDENTITY)
    out = run(flow_lab, editor, far_end("client"), far_end("server"))
    assert met_all(out), (out.met, out.errors)
