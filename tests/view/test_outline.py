"""A flow in a few words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitml4.model.flow import Flow, Layer
from mitml4.view.outline import outline

from .conftest import TIME


def layer(depth: int, protocol: str, action: str = "relayed", **details: Any) -> Layer:
    return Layer(
        depth=depth,
        protocol=protocol,
        action=action,
        speaker="client",
        details=details,
        time=TIME,
    )


def test_a_flow_without_requests_is_told_by_its_innermost_layer(
    make_flow: Callable[..., Flow],
) -> None:
    tls = layer(0, "tls", "intercepted", sni="a.example", alpn=None, version="TLSv1.3")
    ssh = layer(0, "ssh", client_software="OpenSSH_9.2", server_software="OpenSSH_9.6")
    redis = layer(1, "redis", command="SET")
    target = layer(0, "socks5", target={"host": "a.example", "port": 1}, is_odd=True, reply="ok")
    for layers, shown in (
        ([ssh], "OpenSSH_9.2, OpenSSH_9.6"),
        ([tls, redis], "SET"),
        ([tls, layer(1, "smtp")], "TLSv1.3"),
        ([target], "ok"),
        ([layer(0, "x", a=1, b="2", c=3, d=4)], "1, 2, 3"),
        ([layer(0, "unknown")], ""),
        ([], ""),
    ):
        assert outline(make_flow(1, layers=layers, exchanges=[])) == shown


def test_requests_and_what_went_wrong_come_first(make_flow: Callable[..., Flow]) -> None:
    ssh = layer(0, "ssh", client_software="OpenSSH_9.2")
    flow = make_flow(1, layers=[ssh])
    assert outline(flow) == "200 GET http://1.example/"
    flow.exchanges *= 3
    assert outline(flow) == "200 GET http://1.example/ and 2 more"
    assert outline(make_flow(1, layers=[ssh], reason="reset", exchanges=[])) == "reset"
    passed = layer(0, "tls", "passthrough", version="TLSv1.3", passthrough="pinned")
    assert outline(make_flow(1, layers=[passed], exchanges=[])) == "passed through: pinned"
