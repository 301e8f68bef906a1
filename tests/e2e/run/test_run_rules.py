"""Every key of a rule, on the way from curl to nginx: over plain HTTP, TLS with HTTP/1, and
HTTP/2."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest

from tests.e2e.run.conftest import TIMEOUT_S

WAYS = {
    "plain": ("http://www.example", ()),
    "TLS": ("https://www.example", ("--http1.1",)),
    "HTTP/2": ("https://www.example", ("--http2",)),
}
ANSWERING = """
[[rule]]
match = "path:/respond"
respond = { status = 418, headers = { "X-Teapot" = "short" }, body = "stout" }

[[rule]]
match = "path:/file/*"
file = "override"

[[rule]]
match = "path:/one-file"
file = "override/one.js"

[[rule]]
match = "path:/elsewhere*"
to = "http://www.example/"
set-request-headers = { "X-A" = "1" }
"""
EDITING = """
[[rule]]
match = "path:/ host:www.example"
set-response-headers = { "X-Edited" = "yes" }
remove-response-headers = ["Server"]
replace = [
    { in = "response.body", regex = "hello from (nginx)", with = 'greetings by \\1' },
    { in = "response.headers", regex = "(?i)^content-type: .*", with = "Content-Type: text/x" },
]

[[rule]]
match = "path:/slow"
delay = "700ms"
rate = "10KB/s"

[[rule]]
match = "path:/reset"
reset = true

[[rule]]
match = "path:/close"
close = true

[[rule]]
match = "path:/hang"
hang = true

[[rule]]
match = "path:/missing status:404"
set-response-headers = { "X-Was" = "missing" }
"""


def write(host, text: str) -> str:
    rules = host.scratch / "rules"
    (rules / "override" / "file").mkdir(parents=True, exist_ok=True)
    (rules / "override" / "file" / "a.txt").write_text("from a folder")
    (rules / "override" / "one.js").write_text("from a file")
    (rules / "override" / "file" / "out").symlink_to("/etc/passwd")
    path = rules / "rules.toml"
    path.write_text(text)
    for each in (rules, path):
        each.chmod(0o777)
    return str(path)


def curl(*arguments: str) -> str:
    return shlex.join(("curl", "-sS", "-i", "--max-time", "10", *arguments))


@pytest.mark.parametrize("way", WAYS)
def test_messages_are_edited(host, nginx, way: str) -> None:
    url, options = WAYS[way]
    paths = ("", "reset", "close", "missing", "slow")
    script = "\n".join(
        f"{curl(*options, f'{url}/{path}')}; code=$?; echo; echo == {path} $code" for path in paths
    )
    script += f"\n{curl(*options, '--max-time', '1', f'{url}/hang')}; echo == hang $?"
    ended = host.run("sh", "-c", script, options=("--rules", write(host, EDITING)))
    said = ended.out.lower()
    assert "greetings by nginx" in said, ended.err
    assert "x-edited: yes" in said
    assert "content-type: text/x" in said
    assert said.split("==")[0].count("server:") == 0
    assert "== reset 0" not in said
    assert "== close 0" not in said
    assert "== hang 28" in said
    assert "x-was: missing" in said
    applied = {event["what"] for event in ended.of_type("rule.applied")}
    assert {"set-response-headers", "replace in response.body", "reset", "close", "hang"} <= applied
    assert {"delay", "rate"} <= applied
    versions = {event["version"] for event in ended.of_type("http.request")}
    assert versions == {"HTTP/2" if way == "HTTP/2" else "HTTP/1.1"}


@pytest.mark.parametrize("way", WAYS)
def test_requests_are_answered_without_a_server(host, nginx, way: str) -> None:
    url, options = WAYS[way]
    nowhere = url.replace("www.example", "nowhere.example")
    urls = (
        f"{nowhere}:9/respond",
        f"{url}/respond",
        f"{url}/file/a.txt",
        f"{url}/file/%2e%2e/%2e%2e/rules.toml",
        f"{url}/file/out",
        f"{url}/one-file",
        f"{url}/elsewhere",
        f"{url}/",
    )
    script = "\n".join(f"{curl('--path-as-is', *options, each)}; echo; echo ==" for each in urls)
    ended = host.run("sh", "-c", script, options=("--rules", write(host, ANSWERING)))
    nobody, respond, folder, above, link, one, elsewhere, own = ended.out.split("==\n")[:8]
    for answer in (nobody, respond):
        assert answer.startswith("HTTP/1.1 418")
        assert "X-Teapot: short" in answer
        assert answer.strip().endswith("stout")
    assert "text/plain" in folder
    assert folder.strip().endswith("from a folder")
    for answer in (above, link):
        assert answer.startswith("HTTP/1.1 404"), answer
        assert "[[rule]]" not in answer
        assert "root:" not in answer
    assert one.strip().endswith("from a file")
    assert "text/javascript" in one
    assert elsewhere.startswith("HTTP/1.1 404"), elsewhere
    assert "hello from nginx" in own
    stacks = {"plain": ["http/1"]}.get(way, ["tls", "http/1"])
    assert all(stack == stacks for stack in ended.stacks), ended.stacks


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(host, nginx) -> None:
    path = write(host, '[[rule]]\nset-response-headers = { "X-V" = "1" }\n')
    script = f"""
get() {{ curl -sS -o /dev/null -D - http://www.example/ | grep -i x-v; }}
get
echo '[[rule]]
set-response-headers = {{ "X-V" = "2" }}' > {path}.new && mv {path}.new {path}
for i in $(seq 100); do get | grep -q 2 && break; sleep 0.1; done
get
echo '[[rule]]
set-response-headers = 1' > {path}
read _ && get
"""
    process = host.popen(
        host.argv("sh", "-c", script, options=("--rules", path)), stdin=subprocess.PIPE
    )
    said = [""]
    while "a table is needed" not in said[-1]:
        said.append(process.stderr.readline())
        assert said[-1], said
    out, _ = process.communicate("\n", timeout=TIMEOUT_S)
    assert [line.strip() for line in out.splitlines()] == ["X-V: 1", "X-V: 2", "X-V: 2"]
    assert f"{path}: read again, 1 rule" in "".join(said)
    assert f"{path}:2:1: set-response-headers: a table is needed" in said[-1]


def test_a_file_with_an_error_begins_no_session(host) -> None:
    path = write(host, "[[rule]]\nmatch = 'nope:'\nclose = true")
    process = host.popen(host.argv("touch", "ran", options=("--rules", path)))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"{path}:2:10: match: there is no word nope:" in err
    assert not (host.home / "ran").exists()


def test_what_no_rule_can_match_keeps_its_way(host, nginx) -> None:
    rules = write(host, "[[rule]]\nmatch = 'host:other.example'\nrespond = { status = 503 }")
    ended = host.run("curl", "-sS", "https://www.example/", options=("--rules", rules))
    assert ended.out == "hello from nginx\n"
    (tls, http) = ended.of_type("flow.layer")
    assert http["protocol"] == "http/2", json.dumps(tls)
    assert tls["details"]["server_hello"] == "exact"


def test_a_client_that_speaks_only_http_2_is_answered_too(host, nginx) -> None:
    urls = ("respond", "file/a.txt", "elsewhere/big", "")
    script = "\n".join(f"nghttp https://www.example/{each}; echo; echo ==" for each in urls)
    rules = ANSWERING.replace("http://www.example/", "https://www.example/")
    rules += 'set-response-headers = { "X-B" = "1" }'
    ended = host.run("sh", "-c", script, options=("--rules", write(host, rules)))
    respond, folder, elsewhere, own = ended.out.split("==\n")[:4]
    assert respond.strip() == "stout", ended.err
    assert folder.strip() == "from a folder"
    assert "404 Not Found" in elsewhere
    assert own.strip() == "hello from nginx"
    assert all(stack == ["tls", "http/2"] for stack in ended.stacks)
    applied = [event["what"] for event in ended.of_type("rule.applied")]
    assert applied == [
        *("respond", "file"),
        *("set-request-headers", "to", "set-response-headers"),
    ]


def test_a_client_that_asks_for_a_larger_window_gets_a_large_answer(host, nginx) -> None:
    """nghttp refuses what comes in it before its SETTINGS were acknowledged."""
    rules = write(host, ANSWERING)
    (host.scratch / "rules" / "override" / "file" / "large").write_bytes(b"large\n" * 200_000)
    get = "nghttp -w 24 -W 24 https://www.example/file/large"
    ended = host.run("sh", "-c", f"{get} | uniq -c", options=("--rules", rules))
    assert ended.out.split() == ["200000", "large"], ended.err


SOCKETS = """
import asyncio
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

async def echo(socket):
    async for message in socket:
        await socket.send(message)

async def main():
    for compression in ("deflate", None):
        async with serve(echo, "127.0.0.1", 8771, compression=compression):
            async with connect("ws://127.0.0.1:8771/", compression=compression) as socket:
                for number in range(5):
                    for text in (f"plain {number}", "a secret " * 50, "x" * 100_000):
                        await socket.send(text)
                        assert await socket.recv() == text.replace("secret", "public thing")
                await socket.ping()

asyncio.run(main())
print("done")
"""


def test_messages_of_websockets_are_edited_between_real_ends(host) -> None:
    text = '[[rule]]\nreplace = { in = "message", regex = "secret", with = "public thing" }\n'
    options = ("--loopback", "--rules", write(host, text))
    ended = host.run(host.python, "-c", SOCKETS, options=options)
    assert ended.out == "done\n", ended.err
    applied = [event["what"] for event in ended.of_type("rule.applied")]
    assert applied == ["replace in message"] * 10


ASKING_TOO_MUCH = """
[[rule]]
match = "path:/grown"
replace = { in = "response.body", regex = "", with = "@10000@" }

[[rule]]
match = "path:/delayed"
delay = "10m"
"""


def test_a_rule_that_asks_too_much_stops_nobody(host, nginx) -> None:
    """A body that would grow above the limit, and a delay that outlives the client."""
    (nginx / "grown").write_text("a small body")
    rules = write(host, ASKING_TOO_MUCH.replace("@10000@", "x" * 10_000))
    url = "https://www.example"
    script = f"""
for version in --http1.1 --http2; do
  timeout 3 curl -sS $version {url}/delayed; echo == $?
  curl -sS $version {url}/grown; echo
  curl -sS $version {url}/
done
"""
    ended = host.run("sh", "-c", script, options=("--rules", rules, "--edit-limit", "64KiB"))
    assert ended.out == 2 * "== 124\na small body\nhello from nginx\n", ended.err
    reasons = {(event["what"], event["reason"]) for event in ended.of_type("rule.applied")}
    assert ("not replaced", "the result has more than 65536 bytes") in reasons
    assert ended.of_type("flow.close")[0]["duration_s"] < 60
