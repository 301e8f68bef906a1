"""The options of `mitml4 proxy`, and what it prints for a shell."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import click
import pytest

from mitml4.address import Address
from mitml4.cli.configure import proxy_config
from mitml4.cli.console import Console
from mitml4.cli.proxy import proxy
from mitml4.cli.values import parse_listen
from mitml4.errors import MachineError, UsageError
from mitml4.session.config import ProxyConfig
from mitml4.session.proxy import environment
from mitml4.session.sources.proxy import listeners_at

PRINTED = ("http_proxy", "https_proxy", "ALL_PROXY", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")


def config_of(*options: str) -> ProxyConfig:
    context = proxy.make_context("proxy", list(options), obj=Console())
    context.params.pop("env")
    with click.Context(proxy):
        return proxy_config(Console(), **context.params)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (":8080", ["127.0.0.1", "::1"]),
        ("localhost:8080", ["127.0.0.1", "::1"]),
        ("0.0.0.0:8080", ["0.0.0.0"]),
        ("[::]:8080", ["::"]),
        ("[2001:DB8::1]:8080", ["2001:db8::1"]),
    ],
)
def test_a_place_to_listen(text: str, places: list[str]) -> None:
    assert parse_listen(text) == tuple(Address(each, 8080) for each in places)


@pytest.mark.parametrize(
    "text", ["", "8080", ":", ":x", ":65536", "::1:8080", "[127.0.0.1]:1", "example.org:1", "[]:1"]
)
def test_what_is_no_place_to_listen(text: str) -> None:
    with pytest.raises(UsageError):
        parse_listen(text)


@pytest.mark.parametrize("place", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[2001:db8::1]:1"])
def test_others_are_served_only_if_that_is_asked_for(place: str) -> None:
    with pytest.raises(UsageError, match="everybody"):
        config_of("--listen", place)
    assert config_of("--listen", place, "--open").auth == ()
    assert config_of("--listen", place, "--auth", "a:b", "--auth", "c:d").auth == (b"a:b", b"c:d")
    with pytest.raises(UsageError, match="only one"):
        config_of("--listen", place, "--open", "--auth", "a:b")


def test_each_place_is_listened_at() -> None:
    places = (Address("127.0.0.1", 1), Address("::1", 1), Address("192.0.2.1", 2))
    at = ("--listen", ":1", "--listen", "127.0.0.1:1", "--listen", "192.0.2.1:2")
    assert config_of(*at, "--open").listen == places
    assert config_of().listen == (Address("127.0.0.1", 8080), Address("::1", 8080))
    with pytest.raises(UsageError, match=r"everybody who reaches 192\.0\.2\.1:2"):
        config_of(*at)


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["[::]:1", "192.0.2.1:1", ":1", "0.0.0.0:1"], [("::", 1)]),
        (["192.0.2.1:1", "[::]:1"], [("::", 1)]),
        (["192.0.2.1:2", "0.0.0.0:1", "127.0.0.1:1"], [("192.0.2.1", 2), ("0.0.0.0", 1)]),
        (["0.0.0.0:1", ":1"], [("0.0.0.0", 1), ("::1", 1)]),
    ],
)
def test_a_place_that_another_one_covers_is_left_out(
    given: list[str], left: list[tuple[str, int]]
) -> None:
    options = [each for place in given for each in ("--listen", place)]
    listen = config_of(*options, "--open").listen
    assert [(each.ip, each.port) for each in listen] == left


async def test_places_at_several_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    places = [Address("127.0.0.1", 0), Address("127.0.0.2", port), Address("127.0.0.3", 0)]
    listeners = listeners_at(places)
    try:
        free, fixed, same = [each.address for each in listeners]
        assert (free.ip, fixed, same) == (
            "127.0.0.1", places[1], Address("127.0.0.3", free.port),
        )  # fmt: skip
    finally:
        for each in listeners:
            each.close()


def test_a_password_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITML4_PROXY_AUTH", "a:b c:d")
    context = proxy.make_context("proxy", [], obj=Console(), auto_envvar_prefix="MITML4_PROXY")
    assert context.params["auth"] == (b"a:b", b"c:d")


def test_a_shell_gets_variables_and_can_take_them_back(tmp_path: Path) -> None:
    said: list[str] = []
    config = config_of("--listen", ":1", "--auth", "me:p'%@", "--ca-dir", str(tmp_path))
    lines = "\n".join(environment(config, said.append))
    assert "no proxy is at 127.0.0.1:1" in said[0]
    shown = "; ".join(f"echo ${{{name}-none}}" for name in PRINTED)
    script = f"{lines}\n{shown}; mitml4_proxy_off; {shown}"
    printed = subprocess.run(
        ["sh", "-euc", script], env={}, capture_output=True, text=True, check=True
    ).stdout.split()
    proxy_url, bundle = "http://me:p%27%25%40@127.0.0.1:1", str(tmp_path / "mitml4-bundle.pem")
    assert printed == [proxy_url] * 3 + [bundle] * 2 + ["none"] * 5


@pytest.mark.parametrize(
    ("ip", "hint"),
    [
        ("192.0.2.9", "ip address"),
        ("fe80::1", "ip address"),
        ("127.0.0.1", "another port"),
    ],
)
def test_a_place_that_cannot_be_had_is_hinted_at(ip: str, hint: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = Address(ip, taken.getsockname()[1])
        with pytest.raises(MachineError) as raised:
            listeners_at([place])
    assert hint in str(raised.value.hint)
