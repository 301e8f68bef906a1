"""Rules are read with every fault at its line and column."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mitml4.edit.files import Folder
from mitml4.edit.messages import Ending, Server
from mitml4.edit.parser import RulesError, parse_rules

EVERY_KEY = """
[[rule]]
match = "host:api.example.com path:/v1/* method:GET"
set-request-headers = { "X-Debug" = "1" }
remove-request-headers = ["Cookie", "X-Other"]
set-response-headers = { "X-A" = "b" }
remove-response-headers = "Server"
to = "http://127.0.0.1:8000/base/"
delay = "1500ms"
rate = "50KB/s"

[[rule]]
file = "override/app.js"

[[rule]]
respond = { status = 503, headers = { A = "b" }, body = "down" }

[[rule]]
match = "status:5xx"
replace = [
    { in = "response.body", regex = "(prod)", with = '\\1x' },
    { in = "response.headers", regex = "a", with = "b" },
]
reset = true

[[rule]]
close = true
hang = false
"""


def test_every_key_is_read() -> None:
    first, file, respond, replace, close = parse_rules("r.toml", EVERY_KEY.encode())
    assert first.to == Server("http", "127.0.0.1", 8000, "/base")
    assert (first.delay_s, first.rate) == (1.5, 50_000)
    assert first.set_request_headers == (("X-Debug", "1"),)
    assert first.remove_request_headers == ("Cookie", "X-Other")
    assert first.remove_response_headers == ("Server",)
    assert file.file == ("override", "app.js")
    assert respond.respond
    assert (respond.respond.status, respond.respond.body) == (503, b"down")
    assert replace.needs_response
    assert [each.where for each in replace.replace] == ["response.body", "response.headers"]
    assert (replace.ending, close.ending) == (Ending.RESET, Ending.CLOSE)


FAULTS = {
    "x": "1:2: ",
    "[[rule]]\nclose = tru": "2:9: ",
    "[[rule]]\nclose = 1": "2:1: close: true or false",
    "[[rule]]\nclose = true\n[[rule]]\n  nonsense = 1": "4:3: unknown key 'nonsense'",
    "[rule]\nclose = true": "1:1: ",
    "other = 1": "1:1: unknown key 'other'",
    "[[rule]]\nmatch = 'port:443'": "1:1: this rule does nothing",
    "[[rule]]\nreset = false\nset-request-headers = {}": "1:1: this rule does nothing",
    "[[rule]]\nmatch = 'port:443 nope:1'\nclose = true": "2:19: match: there is no word nope:",
    "[[rule]]\nmatch = 'size>1M'\nclose = true": "2:10: match: size: is known only",
    "[[rule]]\nmatch = 'path:/a status:404'\nrespond = { status = 200 }": (
        "3:1: respond is done to a request, and status: is known only of its response"
    ),
    "[[rule]]\nmatch = 'status:404'\nto = 'http://a'": "3:1: to is done to a request",
    "[[rule]]\nmatch = 'status:404'\nreplace = { in = 'request.body', regex = 'a', with = 'b' }": (
        "3:1: replace is done to a request"
    ),
    '[[rule]]\nset-request-headers = { "X-A" = "1\\r\\nX-B: 2" }': (
        "2:1: set-request-headers: the value of a header field has no CR, LF or NUL"
    ),
    '[[rule]]\nrespond = { headers = { "X-A" = "1\\n" } }': "2:1: respond: the value",
    '[[rule]]\nset-request-headers = { "X A" = "1" }': "2:1: set-request-headers: 'X A' is no name",
    '[[rule]]\nset-request-headers = { "Content-Length" = "1" }': "2:1: set-request-headers: Cont",
    "[[rule]]\nremove-request-headers = [1]": "2:1: remove-request-headers: a list of names",
    "[[rule]]\nreplace = { in = 'response.headers', regex = 'a', with = \"\\n\" }": (
        "2:1: replace: with: a header field has no CR, LF or NUL"
    ),
    "[[rule]]\nreplace = { in = 'body', regex = 'a', with = '' }": "2:1: replace: in: there are",
    "[[rule]]\nreplace = { in = 'response.body', regex = '(', with = '' }": "2:1: replace: regex: ",
    "[[rule]]\nreplace = {in='response.body', regex='a', with='\\1'}": "2:1: replace: regex: ",
    "[[rule]]\nreplace = { in = 'data' }": "2:1: replace: a table with in, regex and with",
    "[[rule]]\nfile = '../secret'": "2:1: file: it has to be in the folder",
    "[[rule]]\nfile = '/etc/passwd'": "2:1: file: it has to be in the folder",
    "[[rule]]\nto = 'ftp://a'": "2:1: to: 'ftp://a' is no URL",
    "[[rule]]\nto = 'http://a:99999'": "2:1: to: http://a:99999: ",
    "[[rule]]\nto = 'http://a/b?c'": "2:1: to: only a scheme",
    "[[rule]]\nto = 'http://a'\nclose = true": "2:1: to has no effect beside close",
    "[[rule]]\nrespond = {}\nreset = true": "3:1: reset and respond are two ends",
    "[[rule]]\nrespond = { status = 101 }": "2:1: respond: a status is a number",
    '[[rule]]\nrespond = { status = 204, body = "x" }': "2:1: respond: a response with status 204",
    '[[rule]]\nrespond = { status = 304, body = "x" }': "2:1: respond: a response with status 304",
    "[[rule]]\nremove-request-headers = 'a b'": "2:1: remove-request-headers: 'a b' is no name",
    "[[rule]]\nremove-response-headers = ['A', '']": "2:1: remove-response-headers: '' is no name",
    "[[rule]]\ndelay = '1 week'": "2:1: delay: a duration is needed",
    "[[rule]]\ndelay = '20m'": "2:1: delay: no more than 10m",
    "[[rule]]\nrate = '0B/s'": "2:1: rate: no less than 1B/s",
    "[[rule]]\nrate = 'fast'": "2:1: rate: a rate is needed",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_said_with_its_place(text: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules("r.toml", text.encode())
    assert caught.value.message.startswith(f"r.toml:{FAULTS[text]}"), caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_bytes_that_are_no_text_are_a_fault() -> None:
    with pytest.raises(RulesError, match=r"r.toml:2:1: not UTF-8"):
        parse_rules("r.toml", b"\n\xff")


def test_a_file_that_is_not_there_is_a_fault(tmp_path) -> None:
    with pytest.raises(RulesError, match=r"r.toml:2:1: file: a.js: No such file"):
        parse_rules("r.toml", b"[[rule]]\nfile = 'a.js'", Folder.open(tmp_path))


def test_the_rules_in_the_documentation_are_rules() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
    (text,) = re.findall(r"```toml\n(.+?)```", page, re.DOTALL)
    headers, file, respond, replace = parse_rules("rules.toml", text.encode())
    assert headers.set_request_headers == (("X-Debug", "1"),)
    assert file.file == ("override", "app.js")
    assert respond.respond
    assert respond.respond.status == 503
    assert replace.replace
