"""Which connections go through which proxies."""

from __future__ import annotations

import pytest

from mitml4.address import Address
from mitml4.errors import UsageError
from mitml4.protocols.policy import Target
from mitml4.session.destinations.policy import HostPattern
from mitml4.session.destinations.routes import Routes, Via, routes_of


def routes(*vias: str, no_via: tuple[str, ...] = (), **environ: str) -> Routes:
    exceptions = map(HostPattern.parse, no_via)
    return routes_of(map(Via.parse, vias), exceptions, environ)


def through(made: Routes, name: str, port: int = 443, ip: str = "192.0.2.7") -> str:
    return " ".join(map(str, made.through([Target(ip, port), Target(name, port)])))


A, B = "http://a:1", "socks5h://b:2"


def test_an_option_is_a_url_or_a_host_and_a_url() -> None:
    assert Via.parse(A).host is None
    assert Via.parse("http://user:a=b@a:1").host is None
    named = Via.parse("*.example:443=http://user:a=b@a:1")
    assert named.host == HostPattern.parse("*.example:443")
    assert named.proxy.password == b"a=b"
    for text in ("", "x", "x=", "=http://a", "x=a:1", "://", "http://x=http://a"):
        with pytest.raises(UsageError):
            Via.parse(text)


@pytest.mark.parametrize(
    ("made", "name", "port", "expected"),
    [
        (routes(), "x", 443, ""),
        (routes(A), "x", 22, A),
        (routes(A, B), "x", 443, f"{A} {B}"),
        (routes(f"x={A}"), "x", 443, A),
        (routes(f"x={A}"), "y", 443, ""),
        (routes(f"x={A}", B, f"x={B}"), "x", 443, f"{A} {B}"),
        (routes(f"x={A}", B), "y", 443, B),
        (routes(f"192.0.2.0/24={A}"), "x", 443, A),
        (routes(f"x:22={A}"), "x", 443, ""),
        (routes(A, no_via=("x",)), "x", 443, ""),
        (routes(A, no_via=("192.0.2.7",)), "x", 443, ""),
        (routes(f"x={A}", no_via=("x",)), "x", 443, ""),
        (routes(f"x={A}", no_via=("*",)), "x", 443, A),
        (routes(f"x={A}", no_via=("*",), ALL_PROXY=B), "y", 443, ""),
        (routes(f"x={A}", ALL_PROXY=B), "y", 443, B),
        (routes(A, ALL_PROXY=B, NO_PROXY="*"), "y", 443, A),
    ],
)
def test_the_first_that_concerns_a_connection_decides(
    made: Routes, name: str, port: int, expected: str
) -> None:
    assert through(made, name, port) == expected


def test_variables_stand_for_ports() -> None:
    made = routes(HTTP_PROXY=A, HTTPS_PROXY="c:3")
    assert [through(made, "x", port) for port in (80, 443, 22)] == [A, "http://c:3", ""]
    made = routes(HTTP_PROXY=A, ALL_PROXY=B)
    assert [through(made, "x", port) for port in (80, 443, 22)] == [A, B, B]
    assert through(routes(https_proxy=A, HTTPS_PROXY=B), "x") == A
    assert through(routes(https_proxy="", HTTPS_PROXY=" "), "x") == ""


def test_no_proxy_is_read_as_most_programs_read_it() -> None:
    made = routes(
        ALL_PROXY=A,
        NO_PROXY="one.example, .two.example *.three.example\t10.0.0.0/8,four:22,%,[::1]",
    )
    for name, expected in (
        ("one.example", ""),
        ("sub.one.example", ""),
        ("bone.example", A),
        ("two.example", ""),
        ("sub.two.example", ""),
        ("sub.three.example", ""),
        ("four", A),
    ):
        assert through(made, name) == expected, name
    assert through(made, "x", ip="10.1.2.3") == ""
    assert through(made, "four", 22) == ""
    assert through(routes(ALL_PROXY=A, no_proxy="*"), "x") == ""


def test_what_cannot_be_used_is_said() -> None:
    with pytest.raises(UsageError, match="ALL_PROXY") as refused:
        routes(ALL_PROXY="ftp://u:s3cret@x")
    assert "s3cret" not in refused.value.message
    with pytest.raises(UsageError, match="--no-via"):
        routes(A, no_via=("*",))
    assert not routes(no_via=("*",), ALL_PROXY="ftp://x")


def test_the_nearest_proxies_are_reached_directly() -> None:
    made = routes("http://192.0.2.1:3128", "http://far:1", ALL_PROXY=B)
    assert made.leads_to(Address("192.0.2.1", 3128))
    assert not made.leads_to(Address("192.0.2.1", 3129))
    assert not made.leads_to(Address("192.0.2.9", 1), "far")
    made = routes(ALL_PROXY="socks5h://localhost:9050", HTTP_PROXY="http://Proxy.example:1")
    assert made.leads_to(Address("127.0.0.1", 9050))
    assert made.leads_to(Address("::1", 9050))
    assert made.leads_to(Address("192.0.2.9", 1), "proxy.example")


def test_a_session_says_what_it_goes_through_without_credentials() -> None:
    made = routes(f"x={A}", "http://u:s3cret@c:3", B)
    assert made.described() == (f"x={A}", f"http://c:3 › {B}")
    assert list(made.notes()) == [
        f"connections to x go through {A}",
        f"connections go through http://c:3 › {B}",
    ]
    made = routes(HTTPS_PROXY="http://u:s3cret@c:3", ALL_PROXY=B)
    assert made.described() == ("HTTPS_PROXY=http://c:3", f"ALL_PROXY={B}")
    assert list(made.notes()) == [
        "connections to port 443 go through http://c:3 (HTTPS_PROXY; see --no-via)",
        f"connections go through {B} (ALL_PROXY; see --no-via)",
    ]
    assert "s3cret" not in repr(made)
