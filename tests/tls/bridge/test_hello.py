"""What the server gets for a client's hello: the same bytes, but for the replaced fields."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.crypto import groups
from mitml4.crypto.schedule import Schedule, finished
from mitml4.crypto.suites import suite_of
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import RETRY_RANDOM, Extension
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.hello import RelayedHello, Replacements, relay_hello
from mitml4.tls.bridge.messages import ServerHello, message_hash
from mitml4.tls.bridge.psks import binder_input, binders
from mitml4.tls.bridge.tickets import Ticket
from mitml4.tls.bridge.wire import message, uint16, vector

BESIDE = Path(__file__).parents[4] / "shared" / "pcaps"
CORPUS = Path(os.environ.get("MITML4_PCAPS", BESIDE))

X25519, P256, X25519MLKEM768 = 0x001D, 0x0017, 0x11EC
FFDHE2048, KYBER_DRAFT = 0x0100, 0x6399
GREASE = 0x6A6A
HASH_BYTES = {"sha256": 32, "sha384": 48}

# Made-up hellos


def a_message(
    extensions: list[tuple[int, bytes]] | None,
    *,
    random: bytes = b"r" * 32,
    session_id: bytes = b"s" * 32,
    suites: tuple[int, ...] = (0x1301, 0x1302),
) -> bytes:
    tail = b"" if extensions is None else RawExtensions(tuple(extensions)).encode()
    numbers = vector(2, *map(uint16, suites))
    head = b"\3\3" + random + vector(1, session_id) + numbers
    return message(1, head, b"\1\0", tail)


def in_records(whole: bytes, *sizes: int, version: int = 0x0301) -> bytes:
    """Records of these sizes, and one with the rest."""
    stream, at = b"", 0
    for size in (*sizes, len(whole)):
        stream += b"\x16" + uint16(version) + vector(2, whole[at : at + size])
        at += size
        version = 0x0303
        if at >= len(whole):
            break
    return stream


def a_stream(*extensions: tuple[int, bytes]) -> bytes:
    return in_records(a_message(list(extensions)))


VERSIONS = (Extension.SUPPORTED_VERSIONS, b"\4\3\4\3\3")
DHE_MODE = (Extension.PSK_KEY_EXCHANGE_MODES, b"\1\1")


def shares(*slots: tuple[int, bytes]) -> tuple[int, bytes]:
    return Extension.KEY_SHARE, vector(2, *(uint16(group) + vector(2, key) for group, key in slots))


def share_of(group: int) -> tuple[int, bytes]:
    """What a client might send: of the right length."""
    return group, b"k" * groups.client_share_bytes(group)


def psks(*offered: tuple[bytes, int]) -> tuple[int, bytes]:
    """Identities, each with the length of its binder."""
    identities = (vector(2, identity) + b"\0\1\2\3" for identity, _ in offered)
    signed = (vector(1, b"b" * size) for _, size in offered)
    return Extension.PRE_SHARED_KEY, vector(2, *identities) + vector(2, *signed)


def ech(enc: bytes, payload: bytes) -> tuple[int, bytes]:
    return (
        Extension.ENCRYPTED_CLIENT_HELLO,
        b"\0\0\1\0\1\7" + vector(2, enc) + vector(2, payload),
    )


def some_bytes(least: int = 0, most: int = 40) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=least, max_size=most)


SLOTS = st.lists(
    st.sampled_from([*sorted(groups.SUPPORTED), GREASE, FFDHE2048, KYBER_DRAFT]),
    max_size=4,
    unique=True,
).flatmap(
    lambda chosen: st.tuples(
        *(
            st.tuples(
                st.just(group),
                some_bytes(1, 9)
                if group not in groups.SUPPORTED
                else st.binary(
                    min_size=groups.client_share_bytes(group),
                    max_size=groups.client_share_bytes(group),
                ),
            )
            for group in chosen
        )
    )
)
READ = [
    Extension.COMPRESS_CERTIFICATE,
    Extension.RECORD_SIZE_LIMIT,
    Extension.DELEGATED_CREDENTIAL,
    *(Extension.SERVER_NAME, Extension.ALPN, Extension.EC_POINT_FORMATS),
    *(Extension.SUPPORTED_GROUPS, Extension.SIGNATURE_ALGORITHMS),
    *(Extension.SIGNATURE_ALGORITHMS_CERT, Extension.SUPPORTED_VERSIONS),
    *(Extension.SESSION_TICKET, Extension.PRE_SHARED_KEY, Extension.KEY_SHARE),
    *(Extension.PSK_KEY_EXCHANGE_MODES, Extension.ENCRYPTED_CLIENT_HELLO),
]
OTHERS = st.tuples(st.integers(0, 0xFFFF).filter(lambda kind: kind not in READ), some_bytes())
OPTIONAL = st.lists(
    st.one_of(
        st.builds(ech, some_bytes(), some_bytes(1)),
        st.just((Extension.ENCRYPTED_CLIENT_HELLO, b"\1")),
        st.tuples(st.just(Extension.SESSION_TICKET), some_bytes()),
        st.just((Extension.SERVER_NAME, vector(2, b"\0" + vector(2, b"mitml4.test")))),
        st.just((Extension.ALPN, vector(2, vector(1, b"h2")))),
        st.just((Extension.SUPPORTED_GROUPS, bytes.fromhex("0004 6a6a 001d"))),
        st.just((Extension.SIGNATURE_ALGORITHMS, bytes.fromhex("0004 0403 0804"))),
        OTHERS,
    ),
    max_size=6,
)
PSKS = st.lists(st.tuples(some_bytes(1), st.integers(32, 48)), min_size=1, max_size=3)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    extensions = [VERSIONS, DHE_MODE, draw(SLOTS.map(lambda slots: shares(*slots)))]
    types = {kind for kind, _ in extensions}
    for extension in draw(OPTIONAL):
        if extension[0] not in types:
            types.add(extension[0])
            extensions.append(extension)
    extensions = draw(st.permutations(extensions))
    if draw(st.booleans()):
        extensions.append(psks(*draw(PSKS)))
    return a_message(
        list(extensions),
        random=draw(some_bytes(32, 32)),
        session_id=draw(some_bytes(0, 32)),
        suites=tuple(draw(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=5))),
    )


STREAMS = st.builds(
    lambda whole, sizes, version: in_records(whole, *sizes, version=version),
    messages(),
    st.lists(st.integers(0, 300), max_size=4),
    st.sampled_from([0x0301, 0x0303]),
)


# What stays, and what is replaced


def check_mirrored(mirroring: SimpleNamespace, stream: bytes, relayed: RelayedHello) -> None:
    comparison = mirroring.compare(mirroring.Relayed([(stream, relayed.records())]))
    assert comparison == mirroring.Comparison(
        ja3=True, ja4=True, order=True, bodies=True, records=True
    )
    assert relayed.received == mirroring.message_of(stream)
    assert relayed.sent == mirroring.message_of(relayed.records())
    assert len(relayed.sent) == len(relayed.received)
    assert relayed.random == relayed.sent[6:38]
    assert relayed.session_id == relayed.sent[39 : 39 + relayed.sent[38]]
    # 16 random bytes are never the same again.
    for start, end in mirroring.replaceable(relayed.received):
        if end - start >= 16:
            assert relayed.sent[start:end] != relayed.received[start:end]


@given(stream=STREAMS)
def test_only_the_fields_of_one_connection_are_replaced(
    mirroring: SimpleNamespace, stream: bytes
) -> None:
    check_mirrored(mirroring, stream, relay_hello(stream, Replacements()))


@pytest.mark.skipif(
    not CORPUS.is_dir(), reason=f"no captures in {CORPUS}: set MITML4_PCAPS to their directory"
)
def test_hellos_of_real_clients_keep_everything_else(mirroring: SimpleNamespace) -> None:
    hellos = mirroring.distinct(mirroring.files_in([CORPUS]))
    assert hellos
    for stream in hellos:
        check_mirrored(mirroring, stream, relay_hello(stream, Replacements()))


@given(stream=STREAMS, data=st.data())
def test_a_damaged_hello_is_refused_or_mirrored(
    mirroring: SimpleNamespace, stream: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(stream)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        relayed = relay_hello(bytes(damaged), Replacements())
    except (TlsError, CannotBridge):
        return
    assert mirroring.masked(relayed.sent) == mirroring.masked(relayed.received)


@given(stream=STREAMS)
def test_a_hello_that_is_cut_is_an_error(stream: bytes) -> None:
    for end in range(0, len(stream), 7):
        with pytest.raises(TlsError) as caught:
            relay_hello(stream[:end], Replacements())
        assert caught.value.alert == Alert.DECODE_ERROR


def test_bytes_after_the_hello_are_not_looked_at() -> None:
    stream = a_stream(VERSIONS, shares(share_of(X25519)))
    relayed = relay_hello(stream + b"\x14\3\3\0\1\1\x17", Replacements())
    assert len(relayed.records()) == len(stream)


def test_a_key_is_ours_in_each_slot_that_we_have_a_group_for() -> None:
    slots = [(GREASE, b"\0"), share_of(X25519), (KYBER_DRAFT, b"?" * 1216), share_of(P256)]
    relayed = relay_hello(a_stream(VERSIONS, shares(*slots)), Replacements())
    assert relayed.client_shares == {X25519: slots[1][1], P256: slots[3][1]}
    assert set(relayed.shares) == {X25519, P256}
    ours = [slots[0], (X25519, relayed.shares[X25519].share), slots[2]]
    assert relayed.sent.endswith(shares(*ours, (P256, relayed.shares[P256].share))[1])
    answer, secret = groups.respond(X25519, relayed.shares[X25519].share)
    assert relayed.shares[X25519].agree(answer) == secret


def test_a_hello_without_any_key_asks_for_a_retry_and_is_relayed() -> None:
    relayed = relay_hello(a_stream(VERSIONS, shares()), Replacements())
    assert relayed.shares == {}


def test_what_else_is_read_of_a_hello() -> None:
    relayed = relay_hello(
        a_stream(
            VERSIONS,
            shares(),
            (Extension.COMPRESS_CERTIFICATE, bytes.fromhex("04 0002 0001")),
            (Extension.DELEGATED_CREDENTIAL, bytes.fromhex("0004 0403 0804")),
            (Extension.RECORD_SIZE_LIMIT, bytes.fromhex("4001")),
            (Extension.PSK_KEY_EXCHANGE_MODES, bytes.fromhex("02 0001")),
        ),
        Replacements(),
    )
    assert relayed.compression_algorithms == (2, 1)
    assert relayed.credential_algorithms == (0x0403, 0x0804)
    assert relayed.record_size_limit == 0x4001
    assert relayed.allows_psk_alone
    assert relayed.accepts_tickets
    assert relayed.offers_1_3
    assert relayed.identities == 0
    plain = relay_hello(a_stream(VERSIONS, shares()), Replacements())
    assert plain.compression_algorithms == plain.credential_algorithms == ()
    assert plain.record_size_limit is plain.ticket is plain.ticket_at(0) is None
    assert not plain.allows_psk_alone


@pytest.mark.parametrize("modes", ["", "0101", "020001", "0100"])
def test_tickets_are_for_clients_that_do_not_exclude_a_key_exchange(modes: str) -> None:
    """Erlang lists no modes in a hello that resumes nothing."""
    listed = [(Extension.PSK_KEY_EXCHANGE_MODES, bytes.fromhex(modes))] if modes else []
    relayed = relay_hello(a_stream(VERSIONS, shares(), *listed), Replacements())
    assert relayed.accepts_tickets == (modes != "0100")


def test_a_hello_of_tls_1_2_has_other_random_fields_and_another_ticket() -> None:
    for extensions in (None, [], [(Extension.SESSION_TICKET, b"t" * 40)]):
        whole = a_message(extensions, suites=(0xC02F,))
        relayed = relay_hello(in_records(whole), Replacements())
        assert not relayed.offers_1_3
        assert relayed.random not in whole
        assert relayed.session_id not in whole
        assert relayed.sent[72:80] == whole[72:80]
        if extensions:
            assert relayed.sent[-44:-40] == whole[-44:-40]
            assert relayed.sent[-40:] != whole[-40:]


# Sessions to be resumed


def a_ticket(server_ticket: bytes, *, cipher_suite: int = 0x1301, version: int = 0x0304) -> Ticket:
    suite = suite_of(cipher_suite)
    assert suite
    return Ticket(
        version=version,
        server_ticket=server_ticket,
        server_secret=b"p" * HASH_BYTES[suite.hash],
        client_secret=b"c" * HASH_BYTES[suite.hash],
        cipher_suite=cipher_suite,
        suite=suite,
        site="site",
        seen=None,
    )


@pytest.mark.parametrize("suite", [0x1301, 0x1302])
def test_a_ticket_of_ours_becomes_the_servers_with_our_binder(suite: int) -> None:
    ticket = a_ticket(b"T" * 20, cipher_suite=suite)
    name = ticket.suite.hash
    offered = psks((b"foreign", 32), (b"o" * 20, HASH_BYTES[name]), (b"o" * 20, 32))
    find = {b"o" * 20: ticket}.get
    relayed = relay_hello(
        a_stream(VERSIONS, DHE_MODE, shares(share_of(X25519)), offered),
        Replacements(),
        find_ticket=find,
    )
    assert relayed.ticket == (1, ticket)
    assert [relayed.ticket_at(index) for index in range(3)] == [None, ticket, None]
    assert relayed.identities == 3
    assert vector(2, ticket.server_ticket) + b"\0\1\2\3" in relayed.sent
    assert b"foreign" not in relayed.sent
    signed = binder_input(relayed.sent)
    assert signed + vector(2, *(vector(1, each) for each in binders(relayed.sent))) == relayed.sent
    base = Schedule(name, ticket.server_secret).binder_key()
    expected = finished(name, base, hashlib.new(name, signed).digest())
    assert binders(relayed.sent)[1] == expected
    assert binders(relayed.received) == (b"b" * 32, b"b" * HASH_BYTES[name], b"b" * 32)


@pytest.mark.parametrize(
    ("length", "binder", "version"), [(19, 32, 0x0304), (20, 33, 0x0304), (20, 32, 0x0303)]
)
def test_a_ticket_that_does_not_fit_is_random(length: int, binder: int, version: int) -> None:
    ticket = a_ticket(b"T" * 20, version=version)
    relayed = relay_hello(
        a_stream(VERSIONS, DHE_MODE, shares(), psks((b"o" * length, binder))),
        Replacements(),
        find_ticket=lambda _: ticket,
    )
    assert relayed.ticket is None
    assert ticket.server_ticket not in relayed.sent


def test_a_ticket_of_tls_1_2_becomes_the_servers() -> None:
    ticket = a_ticket(b"T" * 20, cipher_suite=0xC02F, version=0x0303)
    stream = in_records(a_message([(Extension.SESSION_TICKET, b"o" * 20)], suites=(0xC02F,)))
    relayed = relay_hello(stream, Replacements(), find_ticket={b"o" * 20: ticket}.get)
    assert relayed.older_ticket is ticket
    assert relayed.sent.endswith(b"\0\x23" + vector(2, ticket.server_ticket))
    assert relayed.ticket is None
    newer = a_ticket(b"T" * 20)
    relayed = relay_hello(stream, Replacements(), find_ticket=lambda _: newer)
    assert relayed.older_ticket is None
    assert newer.server_ticket not in relayed.sent


# The second hello


def a_retry() -> bytes:
    extensions = RawExtensions(((Extension.KEY_SHARE, uint16(P256)),))
    retry = ServerHello(
        random=RETRY_RANDOM, session_id=b"", cipher_suite=0x1301, extensions=extensions
    )
    return retry.encode()


def test_the_second_hello_repeats_what_the_client_repeats() -> None:
    replacements = Replacements()
    session_ticket = (Extension.SESSION_TICKET, b"t" * 20)
    grease = ech(b"e" * 32, b"p" * 100)
    asked = [VERSIONS, DHE_MODE, session_ticket, grease]
    offered = psks((b"i" * 30, 32))
    first = relay_hello(a_stream(*asked, shares(share_of(X25519)), offered), replacements)
    second = relay_hello(
        a_stream(*asked, shares(share_of(P256), share_of(X25519)), offered), replacements
    )
    assert second.random == first.random
    assert second.session_id == first.session_id
    assert second.shares[X25519] is first.shares[X25519]
    assert second.shares.keys() == {P256, X25519}
    kept = slice(first.received.index(VERSIONS[1]), first.received.index(b"p" * 100) + 100)
    assert second.sent[kept] == first.sent[kept]
    identity = slice(-(30 + 4 + 2 + 33), -(4 + 2 + 33))
    assert first.received[identity] == b"i" * 30
    assert second.sent[identity] == first.sent[identity] != b"i" * 30
    assert binders(second.sent) != binders(first.sent)


def test_ech_of_a_second_hello_has_no_enc_and_another_payload() -> None:
    replacements = Replacements()
    first = relay_hello(a_stream(VERSIONS, shares(), ech(b"e" * 32, b"p" * 64)), replacements)
    second = relay_hello(a_stream(VERSIONS, shares(), ech(b"", b"q" * 64)), replacements)
    assert second.sent.endswith(b"\7\0\0\0\x40" + second.sent[-64:])
    assert len({b"p" * 64, b"q" * 64, first.sent[-64:], second.sent[-64:]}) == 4


def test_the_binder_of_a_second_hello_signs_what_the_server_got_before() -> None:
    replacements = Replacements()
    ticket = a_ticket(b"T" * 20)
    looked_up: list[bytes] = []

    def find(identity: bytes) -> Ticket | None:
        looked_up.append(identity)
        return ticket

    first, second = (
        a_stream(VERSIONS, DHE_MODE, shares(share_of(group)), psks((b"o" * 20, 32)))
        for group in (X25519, P256)
    )
    sent = relay_hello(first, replacements, find_ticket=find).sent
    prefix = message_hash(hashlib.sha256(sent).digest()) + a_retry()
    relayed = relay_hello(second, replacements, find_ticket=find, prefix=prefix)
    transcript = hashlib.sha256(prefix + binder_input(relayed.sent)).digest()
    base = Schedule("sha256", ticket.server_secret).binder_key()
    assert binders(relayed.sent) == (finished("sha256", base, transcript),)
    assert looked_up == [b"s" * 32, b"o" * 20]


# What is refused


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"\x80\x2e\1\0\2", "SSLv2"),
        (a_stream(VERSIONS), "without a key share"),
        (
            a_stream(
                VERSIONS,
                (Extension.PSK_KEY_EXCHANGE_MODES, b"\1\0"),
                shares(),
                psks((b"o" * 20, 32)),
            ),
            "without a key exchange",
        ),
        (a_stream(VERSIONS, shares((X25519, b"k" * 31))), "31 bytes for group 0x001d"),
        (a_stream((Extension.SUPPORTED_VERSIONS, b"\2\x7f\x1c")), "neither"),
        (a_stream((Extension.SUPPORTED_VERSIONS, b"\2\3\2")), "neither"),
    ],
)
def test_what_goes_another_way(stream: bytes, reason: str) -> None:
    with pytest.raises(CannotBridge, match=reason):
        relay_hello(stream, Replacements())


@pytest.mark.parametrize(
    ("stream", "alert"),
    [
        (b"\x17\3\3\0\1x", "UNEXPECTED_MESSAGE"),
        (in_records(message(2, b"x")), "UNEXPECTED_MESSAGE"),
        (in_records(a_message([VERSIONS, shares()]) + b"\1"), "UNEXPECTED_MESSAGE"),
        (in_records(a_message([VERSIONS], session_id=b"s" * 33)), "DECODE_ERROR"),
        (in_records(a_message([VERSIONS], suites=())), "DECODE_ERROR"),
        (a_stream(VERSIONS, shares(), VERSIONS), "ILLEGAL_PARAMETER"),
        (a_stream(VERSIONS, shares(share_of(P256), share_of(P256))), "ILLEGAL_PARAMETER"),
        (a_stream(VERSIONS, shares((X25519, b""))), "DECODE_ERROR"),
        (a_stream(VERSIONS, (Extension.KEY_SHARE, b"\0\0\0")), "DECODE_ERROR"),
        (a_stream(VERSIONS, DHE_MODE, psks((b"o", 32)), shares()), "ILLEGAL_PARAMETER"),
        (a_stream(VERSIONS, DHE_MODE, shares(), psks((b"", 32))), "DECODE_ERROR"),
        (a_stream(VERSIONS, DHE_MODE, shares(), psks((b"o" * 9, 31))), "DECODE_ERROR"),
        (a_stream(VERSIONS, shares(), ech(b"e", b"")), "DECODE_ERROR"),
        (a_stream(VERSIONS, shares(), (0xFE0D, b"\2")), "DECODE_ERROR"),
        (a_stream(VERSIONS, shares(), (0xFE0D, b"\1\0")), "DECODE_ERROR"),
        (a_stream((Extension.SUPPORTED_VERSIONS, b"\4\3\4"), shares()), "DECODE_ERROR"),
        (a_stream(VERSIONS, shares(), (28, b"\0\x3f")), "ILLEGAL_PARAMETER"),
        (
            a_stream(
                VERSIONS,
                shares(),
                (41, vector(2, b"\0\1o\0\0\0\0") + vector(2, vector(1, b"b" * 32) * 2)),
            ),
            "ILLEGAL_PARAMETER",
        ),
    ],
)
def test_what_no_server_accepts(stream: bytes, alert: str) -> None:
    with pytest.raises(TlsError) as caught:
        relay_hello(stream, Replacements())
    assert caught.value.alert == Alert[alert]


def test_only_a_hello_with_identities_has_binders() -> None:
    with pytest.raises(TlsError):
        binders(a_message([VERSIONS]))
