"""The tool that compares ClientHellos: which it finds, and what it sees of a difference."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]


def a_hello(name: str, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """OpenSSL's."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.maximum_version = newest
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def start_of_key_share(stream: bytes) -> int:
    """Of the extension that has nothing but a list; a random key may have its number in it too."""
    for found in re.finditer(b"\0\x33", stream):
        size, of_list = (stream[at : at + 2] for at in (found.end(), found.end() + 2))
        if int.from_bytes(size) == int.from_bytes(of_list) + 2:
            return found.start()
    raise AssertionError("a hello without a key share")


def without_key_share(stream: bytes) -> bytes:
    """The extension gets a number that no client uses."""
    at = start_of_key_share(stream)
    return stream[:at] + b"\xee\xee" + stream[at + 2 :]


def test_the_table_has_every_distinct_hello_of_tls_1_3(
    write_capture: Callable[..., Path], tmp_path: Path
) -> None:
    hellos = [a_hello("a.example"), a_hello("b.example"), a_hello("c.example")]
    connect = b"CONNECT c.example:443 HTTP/1.1\r\n\r\n"
    write_capture(
        [("up", hellos[0][:100]), ("up", hellos[0][100:])],
        [("up", hellos[0])],  # the same once more
        [("up", hellos[1] + b"\x14\3\3\0\1\1")],
        [("up", connect), ("down", b"HTTP/1.1 200 OK\r\n\r\n"), ("up", hellos[2])],
        [("up", a_hello("d.example", newest=ssl.TLSVersion.TLSv1_2))],
        [("up", without_key_share(a_hello("e.example")))],
        [("up", b"GET / HTTP/1.0\r\n\r\n")],
    )
    (tmp_path / "recorded.bin").write_bytes(a_hello("f.example"))
    (tmp_path / "README.md").write_bytes(a_hello("g.example"))
    ended = subprocess.run(
        [sys.executable, ROOT / "tools" / "hello_mirroring.py", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    first, kinds, relayed, *same, excluded, reason = ended.stdout.splitlines()
    assert first.split()[-1] == "5"
    assert kinds.split()[-1] == "2"
    assert relayed.split() == ["relayed", "4", "80.0", "%"]
    assert len(same) == 5
    assert all(line.split()[-3:] == ["4", "100.0", "%"] for line in same)
    assert excluded.split() == ["not", "relayed", "1"]
    assert reason.split() == ["a", "hello", "without", "a", "key", "share", "1"]


def test_a_difference_is_seen(mirroring: SimpleNamespace) -> None:
    hello = a_hello("a.example")
    same = mirroring.Comparison(ja3=True, ja4=True, order=True, bodies=True, records=True)

    def differs(sent: bytes) -> set[str]:
        found = mirroring.compare(mirroring.Relayed([(hello, hello), (hello, sent)]))
        return {name for name in same.__slots__ if getattr(found, name) is False}

    def changed(old: bytes, new: bytes) -> bytes:
        assert old in hello
        return hello.replace(old, new, 1)

    random = hello[11:43]
    assert differs(hello) == set()
    assert differs(changed(random, bytes(32))) == set()
    assert differs(changed(b"a.example", b"b.example")) == {"bodies"}
    assert differs(b"\x16\3\3" + hello[3:]) == {"records"}
    key_share = start_of_key_share(hello)
    assert differs(hello[:key_share] + b"\xee\xee" + hello[key_share + 2 :]) == {
        *("ja3", "ja4", "order", "bodies")
    }
