"""What workers share comes to all of them."""

import pickle

import pytest
import trio

from mitml4.dataclass import replace
from mitml4.layers.tls import TlsInterceptor
from mitml4.session.workers.sharing import AskedForge, Learned, SharedTickets, pack_leaf
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.context import Contexts
from mitml4.tls.engine_memory import EngineSite
from mitml4.tls.forge import Forge
from mitml4.tls.keys import KeyType
from mitml4.tls.pinning import PINNED, Client, PassthroughCache, Site
from mitml4.tls.verify import Unknown, Verifier

CLIENT, SITE = Client("192.0.2.1", "ja4"), Site("198.51.100.2:443", "www.example")


@pytest.fixture
def interceptors():
    authority = CertificateAuthority.generate()
    return [
        TlsInterceptor(
            forge=Forge(authority),
            contexts=Contexts(),
            verifier=Verifier([]),
            passthrough_cache=PassthroughCache(lambda: 100.0),
        )
        for _ in range(2)
    ]


async def test_a_leaf_is_made_once_and_is_the_same_for_all():
    forge = Forge(CertificateAuthority.generate())
    asked = []

    async def ask(what, original, wanted):
        asked.append(what)
        await trio.lowlevel.checkpoint()
        return pickle.loads(pickle.dumps(pack_leaf(await forge.leaf(original, **wanted))))

    one, other = AskedForge(forge, ask), AskedForge(forge, ask)
    wanted = {"issuer": Unknown.ROOT, "key_type": KeyType.EC_P256, "name": "www.example"}
    leaf = await one.leaf(None, **wanted)
    assert await one.leaf(None, **wanted) is leaf
    assert len(asked) == 1
    same = await other.leaf(None, **wanted)
    assert same.chain_der == leaf.chain_der
    assert pack_leaf(same) == pack_leaf(leaf)
    assert await one.leaf(None, **wanted | {"name": "other.example"}) is not leaf


def test_a_ticket_of_one_is_found_by_the_others_for_its_site(ticket):
    told = []
    one, other = (SharedTickets(lambda: 100.0, told.append) for _ in range(2))
    ours = one.issue(ticket, 60)
    ((name, *learned),) = told
    assert name == "ticket"
    assert list(one.all()) == told
    other.learn(*learned)
    assert list(other.all()) == told
    assert other.find(ours, "another site") is None
    assert other.find(ours, "a") == ticket
    assert one.find(ours, "a") == ticket
    assert len(told) == 1
    assert list(other.all()) == told


def test_a_ticket_comes_to_the_others_with_all_that_it_has(ticket):
    told = []
    one, other = SharedTickets(lambda: 100.0, told.append), SharedTickets(lambda: 100.0)
    other_fields = {"extended": True, "nonce": b"1", "seen": ("shown", "by the server")}
    tickets = [ticket, replace(ticket, **other_fields), replace(ticket, version=0x0304, site="b")]
    ours = [one.issue(each, 60) for each in tickets]
    for _, *learned in pickle.loads(pickle.dumps(told)):
        other.learn(*learned)
    for each, name in zip(tickets, ours, strict=True):
        assert other.find(name, each.site) == each.with_psks()


def test_the_oldest_tickets_are_forgotten(ticket, monkeypatch):
    monkeypatch.setattr("mitml4.tls.bridge.tickets.MAX_TICKETS", 3)
    told = []
    one, other = SharedTickets(lambda: 100.0, told.append), SharedTickets(lambda: 100.0)
    ours = [one.issue(ticket, 60) for _ in range(5)]
    for _, *learned in told:
        other.learn(*learned)
    for tickets in (one, other):
        assert [bool(tickets.find(each, "a")) for each in ours] == [False, False, True, True, True]


def connect(interceptor, *what):
    visit = interceptor.passthrough_cache.visit(CLIENT, SITE)
    for each in what:
        getattr(visit, each)()
    return interceptor.passthrough_cache


@pytest.mark.parametrize(
    ("first", "then", "is_pinned"),
    [
        (("refused",), (), True),
        (("refused",), ("accepted",), False),
        (("left",), ("left",), True),
        (("left", "accepted"), ("left",), False),
    ],
)
def test_what_clients_show_to_one_counts_at_the_other(interceptors, first, then, is_pinned):
    one, other = map(Learned, interceptors)
    one.send_changes(lambda change: other.change(*change))
    other.send_changes(lambda change: one.change(*change))
    connect(one.interceptor, *first)
    connect(other.interceptor, *then)
    for each in (one, other):
        reason = each.interceptor.passthrough_cache.reason(CLIENT, SITE)
        assert reason == (PINNED if is_pinned else None)


def test_a_new_worker_is_told_everything(interceptors):
    one, new = map(Learned, interceptors)
    connect(one.interceptor, "refused").leave_sessions("192.0.2.1", SITE.host, True)
    one.interceptor.engine_memory.forced(EngineSite(SITE, "ja4"), "cipher")
    new.state = pickle.loads(pickle.dumps(one.state))
    assert new.interceptor.passthrough_cache.reason(CLIENT, SITE) == PINNED
    assert new.interceptor.passthrough_cache.has_closed_sessions("192.0.2.1", SITE.host)
    assert new.interceptor.engine_memory.must_use_openssl(EngineSite(SITE, "ja4")) == "cipher"


def test_no_other_method_can_be_called(interceptors):
    with pytest.raises(ValueError, match="visit"):
        Learned(interceptors[0]).change("pins", "visit", CLIENT, SITE)
