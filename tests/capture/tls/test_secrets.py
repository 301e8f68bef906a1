"""Key logs, as they come."""

from __future__ import annotations

from mitml4.capture.tls.secrets import CLIENT_TRAFFIC, MASTER, Secrets

RANDOM = "ab" * 32
MASTER_SECRET = "01" * 48
TRAFFIC_SECRET = "02" * 32


def test_lines_are_found_by_the_random_and_the_label() -> None:
    secrets = Secrets()
    assert not secrets
    lines = f"# made by a browser\r\nCLIENT_RANDOM {RANDOM} {MASTER_SECRET}\r\n"
    lines += f"CLIENT_TRAFFIC_SECRET_0 {RANDOM.upper()} {TRAFFIC_SECRET}"
    assert secrets.add(lines.encode()) == 2
    assert secrets
    assert secrets.of(bytes.fromhex(RANDOM)) == {
        MASTER: bytes.fromhex(MASTER_SECRET),
        CLIENT_TRAFFIC: bytes.fromhex(TRAFFIC_SECRET),
    }
    assert secrets.of(bytes(32)) is None


def test_what_is_no_secret_is_skipped() -> None:
    secrets = Secrets()
    lines = [
        b"",
        b"CLIENT_RANDOM",
        f"CLIENT_RANDOM {RANDOM} {MASTER_SECRET} more".encode(),
        f"CLIENT_RANDOM {RANDOM[:-2]} {MASTER_SECRET}".encode(),
        f"CLIENT_RANDOM {RANDOM[:-1]}z {MASTER_SECRET}".encode(),
        f"CLIENT_RANDOM {RANDOM} {MASTER_SECRET[:-2]}".encode(),
        f"QUIC_CLIENT_TRAFFIC_SECRET_0 {RANDOM} {TRAFFIC_SECRET}".encode(),
        b"RSA 0102030405060708 " + MASTER_SECRET.encode(),
        bytes(range(256)),
        "CLIENT_RANDOM äöü".encode(),
    ]
    assert secrets.add(b"\n".join(lines)) == 0
    assert not secrets


def test_what_comes_later_is_seen_by_who_has_asked_already() -> None:
    secrets = Secrets()
    secrets.add(f"CLIENT_RANDOM {RANDOM} {MASTER_SECRET}".encode())
    known = secrets.of(bytes.fromhex(RANDOM))
    secrets.add(f"CLIENT_TRAFFIC_SECRET_0 {RANDOM} {TRAFFIC_SECRET}".encode())
    assert known is not None
    assert set(known) == {MASTER, CLIENT_TRAFFIC}


def test_the_oldest_connections_make_room() -> None:
    secrets = Secrets()
    for number in range(100_001):
        secrets.add(f"CLIENT_RANDOM {number:064x} {MASTER_SECRET}".encode())
    assert secrets.of((0).to_bytes(32, "big")) is None
    assert secrets.of((1).to_bytes(32, "big"))
    assert secrets.of((100_000).to_bytes(32, "big"))
