"""The packets of RFC 9001 and RFC 9369, appendix A."""

from __future__ import annotations

from mitml4.crypto.quic import InitialKeys, retry_tag, whole_number
from tests.crypto.quic_packets import vectors


def test_initial_packets_of_both_versions_are_opened() -> None:
    for each in vectors():
        client = InitialKeys(each.version, each.connection_id, of_client=True)
        opened = client.open(each.client, 18)
        assert opened is not None
        assert opened.number == 2
        assert opened.payload.rstrip(b"\0") == each.client_payload.rstrip(b"\0")
        assert len(opened.payload) == 1162
        server = InitialKeys(each.version, each.connection_id, of_client=False)
        opened = server.open(each.server, 18)
        assert opened is not None
        assert (opened.number, opened.payload) == (1, each.server_payload)


def test_a_packet_that_was_changed_or_is_another_sides_is_not_opened() -> None:
    for each in vectors():
        client = InitialKeys(each.version, each.connection_id, of_client=True)
        assert client.open(each.server, 18) is None
        assert client.open(each.client[:-1] + b"\0", 18) is None
        assert client.open(each.client[:30], 18) is None
        assert InitialKeys(each.version, b"other", of_client=True).open(each.client, 18) is None


def test_the_tag_of_a_retry_is_that_of_the_rfcs() -> None:
    for each in vectors():
        tag = retry_tag(each.version, each.retry[:-16], each.connection_id)
        assert tag == each.retry[-16:]
    assert retry_tag(0xFF00001D, b"", b"") is None


def test_a_number_that_was_cut_is_the_one_next_to_what_is_expected() -> None:
    """RFC 9000 §A.3 has this example."""
    assert whole_number(0x9B32, 16, 0xA82F30EA + 1) == 0xA82F9B32
    assert whole_number(0xFF, 8, 0x102) == 0xFF
    assert whole_number(0x01, 8, 0x1FF) == 0x201
