"""The shim against OpenSSL's programs."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests import programs
from tests.programs import Program
from tests.tls.bridge.peers import certificate
from tests.tls.shim import UNIMPLEMENTED

SHIM = ["-m", "tests.tls.shim"]


@pytest.fixture(params=["ec-p256", "rsa"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    made, key = certificate(request.param)
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(made.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return [str(cert_file), str(key_file)]


@contextmanager
def started(command: list[str], announces: str) -> Iterator[tuple[Any, str]]:
    """A server, and the port that it prints."""
    start: Any = Program if command[0] == "-m" else subprocess.Popen
    with start(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                if found := re.search(announces, line):
                    yield process, found[1]
                    return
            pytest.fail("it does not listen")
        finally:
            process.kill()


VERSIONS = [["-tls1_2"], ["-tls1_3"]]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server(files: list[str], version: list[str]) -> None:
    cert_file, key_file = files
    server = [*SHIM, "-server", "-accept", "-cert-file", cert_file, "-key-file", key_file]
    server += ["-shim-writes-first", "-shim-shuts-down", "-check-close-notify"]
    server += ["-select-alpn", "h2"]
    number = "771" if version == ["-tls1_2"] else "772"
    server += ["-expect-version", number, "-expect-server-name", "bridge.example", "-async"]
    with started(server, r"port (\d+)") as (process, port):
        client = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *version]
        client += ["-servername", "bridge.example", "-alpn", "http/1.1,h2", "-quiet"]
        told = subprocess.run(client, input="", capture_output=True, text=True, timeout=60)
        assert told.stdout == "hello", told.stderr
        assert process.wait(60) == 0, process.stdout and process.stdout.read()


def test_data_is_sent_back_until_the_end(files: list[str]) -> None:
    cert_file, key_file = files
    server = [*SHIM, "-server", "-accept", "-cert-file", cert_file, "-key-file", key_file]
    context = ssl.create_default_context(cafile=cert_file)
    data = bytes(range(256)) * 400
    with (
        started([*server, "-check-close-notify"], r"port (\d+)") as (process, port),
        socket.create_connection(("127.0.0.1", int(port))) as plain,
    ):
        context.check_hostname = False
        with context.wrap_socket(plain) as wrapped, wrapped.makefile("rb") as reader:
            wrapped.sendall(data)
            assert reader.read(len(data)) == bytes(byte ^ 0xFF for byte in data)
            wrapped.unwrap()
        assert process.wait(60) == 0, process.stdout and process.stdout.read()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_resumes(files: list[str], version: list[str], tmp_path: Path) -> None:
    cert_file, key_file = files
    server = [*SHIM, "-server", "-accept", "-cert-file", cert_file, "-key-file", key_file]
    server += ["-resume-count", "1", "-shim-writes-first", "-curves", "24", "-shim-shuts-down"]
    session = str(tmp_path / "session")
    with started(server, r"port (\d+)") as (process, port):
        client = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *version, "-ign_eof"]
        for option in ("-sess_out", "-sess_in"):
            told = subprocess.run(
                [*client, option, session], input="", capture_output=True, text=True, timeout=60
            )
            assert "hello" in told.stdout, told.stderr
            assert ("\nReused, " in told.stdout) == (option == "-sess_in"), told.stdout
        assert process.wait(60) == 0, process.stdout and process.stdout.read()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("group", ["X25519", "P-384"])
def test_a_client(files: list[str], version: list[str], group: str) -> None:
    """P-384 is not the first group of the client's: the server of TLS 1.3 asks for it."""
    cert_file, key_file = files
    server = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", cert_file, "-key", key_file]
    server += [*version, "-rev", "-alpn", "h2", "-groups", group]
    if version == ["-tls1_3"]:
        server += ["-verify", "1"]  # in TLS 1.2 the certificate's curve would have to be a group
    with started(server, r"ACCEPT [^ ]*:(\d+)") as (_, port):
        client = [*SHIM, "-port", port, "-host-name", "bridge.example", "-shim-writes-first"]
        client += ["-advertise-alpn", "\x02h2", "-expect-alpn", "h2", "-resume-count", "2"]
        client += ["-shim-shuts-down", "-on-initial-expect-ticket"]
        client += ["-cert-file", cert_file, "-key-file", key_file]
        if version == ["-tls1_3"]:
            client.append("-expect-hrr" if group == "P-384" else "-expect-no-hrr")
        told = programs.run(client, text=True)
        assert told.returncode == 0, told.stderr


def test_what_goes_wrong_is_told(files: list[str]) -> None:
    cert_file, key_file = files
    server = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", cert_file, "-key", key_file]
    with started([*server, "-tls1_2"], r"ACCEPT [^ ]*:(\d+)") as (_, port):
        client = [*SHIM, "-port", port, "-no-tls12"]
        told = programs.run(client, text=True)
        assert (told.returncode, told.stderr) == (1, "error: received alert protocol_version\n")


def test_options() -> None:
    unknown = programs.run([*SHIM, "-dtls"])
    assert unknown.returncode == UNIMPLEMENTED
    told = programs.run([*SHIM, "--help"], text=True, check=True)
    assert "-shim-writes-first" in told.stdout
