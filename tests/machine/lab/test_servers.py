"""The lab's clients and servers get on without anything between them."""

from functools import partial

import pytest
import trio

from mitml4.lab.certificates import LabAuthority
from mitml4.lab.clients import VISITS, Trust
from mitml4.lab.network import LabNetwork
from mitml4.lab.tour import make_servers


@pytest.fixture
def lab():
    with LabNetwork() as network:
        yield network


EXPECTED = {
    "curl, plain HTTP": "HTTP/1.1 200",
    "curl --http1.1": "HTTP/1.1 200",
    "WebSocket": "echoed hello",
    "SMTP with STARTTLS": "STARTTLS done",
    "SSH, server speaks first": "SSH-2.0-Lab_1.0",
    "bytes that nobody knows": "echoed",
    "curl, expired certificate": "certificate has expired",
}


@pytest.mark.parametrize("visit", VISITS, ids=lambda visit: visit.title)
async def test_a_visit_succeeds_without_mitml4(lab, visit, tmp_path):
    authority = LabAuthority(tmp_path)
    servers = make_servers(lab, authority)
    trust = Trust(mitml4=authority.root, lab=authority.root)
    async with trio.open_nursery() as nursery:
        await nursery.start(servers.run)
        outcome = await trio.to_thread.run_sync(lab.client.call, partial(visit.client, trust))
        nursery.cancel_scope.cancel()
    assert outcome == EXPECTED.get(visit.title, "HTTP/2 200")
