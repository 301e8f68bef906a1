"""Secrets against those that others have published or derived."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from mitml4.crypto.schedule import (
    Schedule,
    Secrets,
    expand_label,
    extended_master_secret,
    finished,
    finished_1_2,
    master_secret,
    prf,
    ticket_psk,
)
from tests.crypto.openssl import KEY, NO_EXTENDED_MASTER_SECRET, Pair, messages_of
from tests.crypto.rfc8448 import ONE_RTT, RESUMED, TRACES, Trace

SERVER_HELLO, FINISHED = 2, 20
HASH = "sha256"


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_every_secret_of_the_published_traces_is_derived(trace: Trace) -> None:
    secrets = trace.secrets
    hello, last = trace.after("server", SERVER_HELLO), trace.after("server", FINISHED)
    schedule = Schedule(HASH, trace.psk)
    assert schedule.enter_handshake(trace.shared, trace.transcript(hello)) == Secrets(
        client=secrets["c hs traffic"], server=secrets["s hs traffic"]
    )
    assert schedule.enter_application(trace.transcript(last)) == Secrets(
        client=secrets["c ap traffic"], server=secrets["s ap traffic"]
    )
    assert schedule.exporter(trace.transcript(last)) == secrets["exp master"]
    whole = trace.transcript(trace.after("client", FINISHED))
    assert schedule.resumption(whole) == secrets["res master"]


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_the_finished_of_both_sides_are_those_of_the_published_traces(trace: Trace) -> None:
    for sender, label in (("server", "s hs traffic"), ("client", "c hs traffic")):
        count = trace.after(sender, FINISHED)
        verify_data = finished(HASH, trace.secrets[label], trace.transcript(count - 1))
        assert trace.messages[count - 1][1] == b"\x14\0\0\x20" + verify_data


def test_the_ticket_of_one_connection_is_the_psk_of_the_next() -> None:
    nonce = b"\0\0"
    psk = ticket_psk(HASH, ONE_RTT.secrets["res master"], nonce)
    assert psk == ONE_RTT.ticket_psk == RESUMED.psk


def test_a_binder_is_that_of_the_published_trace() -> None:
    key = Schedule(HASH, RESUMED.psk).binder_key()
    assert key == RESUMED.binder_key
    binder = finished(HASH, key, RESUMED.binder_hash)
    assert binder == RESUMED.binder
    assert RESUMED.messages[0][1].endswith(binder)
    assert Schedule(HASH, RESUMED.psk).binder_key(external=True) != key


@pytest.mark.parametrize(
    ("name", "algorithm"), [("sha256", hashes.SHA256()), ("sha384", hashes.SHA384())]
)
def test_labels_are_expanded_to_any_length(name: str, algorithm: hashes.HashAlgorithm) -> None:
    secret, context = bytes(range(algorithm.digest_size)), b"context"
    for length in (1, 12, 32, 48, 49, 255):
        info = length.to_bytes(2, "big") + b"\x0btls13 label\x07context"
        expected = HKDFExpand(algorithm, length, info).derive(secret)
        assert expand_label(name, secret, b"label", context, length) == expected


@pytest.mark.parametrize(
    ("hash_name", "secret", "seed", "output"),
    [
        (  # https://mailarchive.ietf.org/arch/msg/tls/fzVCzk-z3FShgGJ6DOXqM1ydxms/
            "sha256",
            "9bbe436ba940f017b17652849a71db35",
            "a0ba9f936cda311827a6f796ffd5198c",
            "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a"
            "6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab"
            "4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701"
            "87347b66",
        ),
        (
            "sha384",
            "b80b733d6ceefcdc71566ea48e5567df",
            "cd665cf6a8447dd6ff8b27555edb7465",
            "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cd"
            "e9ca0faa60be9fe34f82b1233c9146a0e534cb400fed2700884f9dc236f80edd"
            "8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d918425"
            "9b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee6"
            "91c8f3a26854308d5eaa3be85e0990703d73e56f",
        ),
    ],
)
def test_the_prf_gives_what_others_have_published(
    hash_name: str, secret: str, seed: str, output: str
) -> None:
    expected = bytes.fromhex(output)
    derived = prf(
        hash_name, bytes.fromhex(secret), b"test label", bytes.fromhex(seed), len(expected)
    )
    assert derived == expected


@pytest.mark.parametrize(
    ("suite", "hash_name"), [("AES128-GCM-SHA256", "sha256"), ("AES256-GCM-SHA384", "sha384")]
)
@pytest.mark.parametrize("is_extended", [False, True])
def test_a_master_secret_and_the_finished_of_both_sides_are_openssls(
    suite: str, hash_name: str, is_extended: bool
) -> None:
    pair = Pair(suite, options=0 if is_extended else NO_EXTENDED_MASTER_SECRET)
    client = list(messages_of(pair.client_records))
    client_hello, client_key_exchange = client[0], b"".join(client[1:])
    # RFC 5246 §7.4.7.1: the client has encrypted the premaster secret with the server's key.
    assert isinstance(KEY, RSAPrivateKey)
    premaster = KEY.decrypt(client_key_exchange[6:], PKCS1v15())
    messages = client_hello + b"".join(messages_of(pair.server_records)) + client_key_exchange
    transcript = hashlib.new(hash_name, messages).digest()
    if is_extended:
        master = extended_master_secret(hash_name, premaster, transcript)
    else:
        randoms = pair.client.client_random(), pair.client.server_random()
        assert all(randoms)
        master = master_secret(hash_name, premaster, *randoms)
    assert master == pair.client.master_key()
    verify_data = finished_1_2(hash_name, master, b"client finished", transcript)
    assert verify_data == pair.client.get_finished()
    messages += b"\x14\0\0\x0c" + verify_data
    transcript = hashlib.new(hash_name, messages).digest()
    verify_data = finished_1_2(hash_name, master, b"server finished", transcript)
    assert verify_data == pair.server.get_finished()
