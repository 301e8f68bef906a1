import pytest

from mitml4.crypto.suites import suite_of
from mitml4.tls.bridge.tickets import Ticket


@pytest.fixture
def ticket():
    """A session of TLS 1.2 with the site `a`."""
    return Ticket(
        version=0x0303,
        server_ticket=bytes(64),
        server_secret=b"server",
        client_secret=b"client",
        cipher_suite=0xC02B,
        suite=suite_of(0x1301),
        site="a",
        seen=None,
    )
