"""The figure of the README: what reaches a server of the hellos of recorded clients."""

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "hello_mirroring.py"


def a_hello(name):
    """OpenSSL's."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("server", ["plain", "retry", "older"])
def test_the_server_gets_the_hello_and_the_client_the_answer(tmp_path, server):
    (tmp_path / "a.hello").write_bytes(a_hello("a.example"))
    (tmp_path / "b.hello").write_bytes(a_hello("b.example"))
    ended = subprocess.run(
        [sys.executable, TOOL, tmp_path, "--intercept", "--server", server],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert rows[0][-1] == "2"
    assert rows[-1] == ["not", "relayed", "0"]
    assert [row[-3:] for row in rows[2:-1]] == [["2", "100.0", "%"]] * 8
