"""What earlier connections say about the engine of the next one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mitml4.tls import engine_memory
from mitml4.tls.engine_memory import EngineMemory, EngineSite
from mitml4.tls.pinning import Site

ONE = EngineSite(Site("192.0.2.1:443", "a.example"), "t13d1516h2_8daaf6152771_d8a2da3f94cd")
OTHER_CLIENT = EngineSite(ONE.site, "t13d311100_e8f1e7e78f70_d41ae481755e")
OTHER_SITE = EngineSite(Site("192.0.2.1:443", "b.example"), ONE.ja4)


def test_nothing_is_known_at_first() -> None:
    memory = EngineMemory()
    assert memory.must_use_openssl(ONE) is None
    assert not memory.may_bridge_inside(ONE, offers_1_3=True)


def test_what_forced_a_second_connection_counts_for_this_kind_of_hello() -> None:
    memory = EngineMemory()
    memory.forced(ONE, "TLS 1.2 with CBC")
    assert memory.must_use_openssl(ONE) == "TLS 1.2 with CBC"
    for other in (OTHER_CLIENT, OTHER_SITE, EngineSite(ONE.site)):
        assert memory.must_use_openssl(other) is None


def may_bridge(memory: EngineMemory, site: EngineSite, *, offers_1_3: bool = True) -> bool:
    return memory.may_bridge_inside(site, offers_1_3=offers_1_3)


def test_tls_1_3_counts_for_every_client_that_offers_it() -> None:
    memory = EngineMemory()
    memory.finished(ONE, is_1_3=True)
    assert may_bridge(memory, ONE)
    assert may_bridge(memory, OTHER_CLIENT)
    assert not may_bridge(memory, OTHER_CLIENT, offers_1_3=False)
    assert not may_bridge(memory, OTHER_SITE)


def test_tls_1_2_counts_for_the_same_kind_of_hello() -> None:
    memory = EngineMemory()
    memory.finished(ONE, is_1_3=False)
    assert may_bridge(memory, ONE)
    assert may_bridge(memory, ONE, offers_1_3=False)
    assert not may_bridge(memory, OTHER_CLIENT)
    assert not may_bridge(memory, OTHER_SITE)


def test_openssl_finishes_where_the_bridge_could_not() -> None:
    memory = EngineMemory()
    memory.forced(ONE, "an unknown extension")
    for is_1_3 in (False, True):
        memory.finished(ONE, is_1_3=is_1_3)
    assert memory.must_use_openssl(ONE) == "an unknown extension"
    assert not may_bridge(memory, ONE)
    assert may_bridge(memory, OTHER_CLIENT)


def test_everything_is_forgotten_after_a_while() -> None:
    clock = SimpleNamespace(now=0.0)
    memory = EngineMemory(lambda: clock.now)
    memory.forced(ONE, "a reason")
    memory.finished(OTHER_SITE, is_1_3=True)
    memory.finished(OTHER_CLIENT, is_1_3=False)
    clock.now = engine_memory._REMEMBERED_S - 1
    assert memory.must_use_openssl(ONE)
    assert may_bridge(memory, OTHER_SITE)
    assert may_bridge(memory, OTHER_CLIENT)
    clock.now += 2
    assert memory.must_use_openssl(ONE) is None
    assert not may_bridge(memory, OTHER_SITE)
    assert not may_bridge(memory, OTHER_CLIENT)


def test_the_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_memory, "_MAX_ENTRIES", 10)
    memory = EngineMemory()
    sites = [EngineSite(Site(f"192.0.2.{number}:443", None)) for number in range(100)]
    for site in sites:
        memory.forced(site, "a reason")
        memory.finished(site, is_1_3=True)
        memory.finished(site, is_1_3=False)
    assert sum(bool(memory.must_use_openssl(site)) for site in sites) == 10
    assert len(memory._finished) == len(memory._speaks_1_3) == 10
