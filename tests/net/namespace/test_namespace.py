"""The parent's side of a namespace; what is in it is tested end to end."""

from __future__ import annotations

import errno
import os

import pytest

from mitml4.errors import MachineError
from mitml4.net.namespace import namespace
from mitml4.net.namespace.namespace import Namespace, sources_of_host
from mitml4.net.namespace.rules import Sources


def test_a_keeper_that_breaks_is_an_error_and_not_a_second_us(monkeypatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise AssertionError("a bug of ours")

    monkeypatch.setattr(namespace, "keep", breaks)
    with pytest.raises(MachineError, match="has ended"):
        Namespace.open()


def test_where_no_process_can_be_started_that_is_said(monkeypatch) -> None:
    def limited() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", limited)
    with pytest.raises(MachineError, match="cannot start a process"):
        Namespace.open()


def test_addresses_without_any_network_are_such_that_nobody_has(monkeypatch) -> None:
    monkeypatch.setattr(namespace, "_source_towards", lambda _family: None)
    monkeypatch.setattr(namespace, "_own_addresses", list)
    assert sources_of_host() == Sources("198.18.0.1", None)


def test_a_host_without_a_way_out_uses_the_addresses_that_it_has(monkeypatch) -> None:
    monkeypatch.setattr(namespace, "_source_towards", lambda _family: None)
    monkeypatch.setattr(
        namespace, "_own_addresses", lambda: ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
    )
    assert sources_of_host() == Sources("192.0.2.1", "2001:db8::1", ("192.0.2.2",))
