"""Keys and records against what others have published or derived."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from mitml4.capture.tls.decryption import TlsDecryption
from mitml4.capture.tls.protection import NotAuthentic, Record, protection_1_2, protection_1_3
from mitml4.capture.tls.secrets import Secrets
from mitml4.capture.tls.suites import Suite, suite_of
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction
from mitml4.protocols.tls.protocol import TlsDetails

UP, DOWN = Direction.UP, Direction.DOWN

# RFC 8448 §3, "Simple 1-RTT Handshake": complete records, and the secrets as in a key log.
CLIENT_HELLO = bytes.fromhex(
    "16030100c4010000c00303cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece70000061301"
    "13031302010000910000000b0009000006736572766572ff01000100000a00140012001d001700180019010001010102"
    "0103010400230000003300260024001d002099381de560e4bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529a"
    "af2c002b0003020304000d0020001e040305030603020308040805080604010501060102010402050206020202002d00"
    "020101001c00024001"
)
SERVER_HELLO = bytes.fromhex(
    "160303005a020000560303a6af06a4121860dc5e6e60249cd34c95930c8ac5cb1434dac155772ed3e269280013010000"
    "2e00330024001d0020c9828876112095fe66762bdbf7c672e156d6cc253b833df1dd69b1b04e751f0f002b00020304"
)
SERVER_FLIGHT = bytes.fromhex(
    "17030302a2d1ff334a56f5bff6594a07cc87b580233f500f45e489e7f33af35edf7869fcf40aa40aa2b8ea73f848a7ca"
    "07612ef9f945cb960b4068905123ea78b111b429ba9191cd05d2a389280f526134aadc7fc78c4b729df828b5ecf7b13b"
    "d9aefb0e57f271585b8ea9bb355c7c79020716cfb9b1183ef3ab20e37d57a6b9d7477609aee6e122a4cf51427325250c"
    "7d0e509289444c9b3a648f1d71035d2ed65b0e3cdd0cbae8bf2d0b227812cbb360987255cc744110c453baa4fcd61092"
    "8d809810e4b7ed1a8fd991f06aa6248204797e36a6a73b70a2559c09ead686945ba246ab66e5edd8044b4c6de3fcf2a8"
    "9441ac66272fd8fb330ef8190579b3684596c960bd596eea520a56a8d650f563aad27409960dca63d3e688611ea5e22f"
    "4415cf9538d51a200c27034272968a264ed6540c84838d89f72c24461aad6d26f59ecaba9acbbb317b66d902f4f292a3"
    "6ac1b639c637ce343117b659622245317b49eeda0c6258f100d7d961ffb138647e92ea330faeea6dfa31c7a84dc3bd7e"
    "1b7a6c7178af36879018e3f252107f243d243dc7339d5684c8b0378bf30244da8c87c843f5e56eb4c5e8280a2b48052c"
    "f93b16499a66db7cca71e4599426f7d461e66f99882bd89fc50800becca62d6c74116dbd2972fda1fa80f85df881edbe"
    "5a37668936b335583b599186dc5c6918a396fa48a181d6b6fa4f9d62d513afbb992f2b992f67f8afe67f76913fa388cb"
    "5630c8ca01e0c65d11c66a1e2ac4c85977b7c7a6999bbf10dc35ae69f5515614636c0b9b68c19ed2e31c0b3b66763038"
    "ebba42f3b38edc0399f3a9f23faa63978c317fc9fa66a73f60f0504de93b5b845e275592c12335ee340bbc4fddd50278"
    "4016e4b3be7ef04dda49f4b440a30cb5d2af939828fd4ae3794e44f94df5a631ede42c1719bfdabf0253fe5175be898e"
    "750edc53370d2b"
)
CLIENT_FINISHED = bytes.fromhex(
    "170303003575ec4dc238cce60b298044a71e219c56cc77b0517fe9b93c7a4bfc44d87f38f80338ac98fc46deb384bd1c"
    "aeacab6867d726c40546"
)
TICKET = bytes.fromhex(
    "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d11d63c758db289a"
    "015940252f55713e061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6c0d4a3d03f75e0"
    "9c30ba1e62972ac46f75f7b981be63439b2999ce13064615139891d5e4c5b406f16e3fc181a77ca475840025db2f0a77"
    "f81b5ab05b94c01346755f69232c86519d86cbeeac87aac347d143f9605d64f650db4d023e70e952ca49fe5137121c74"
    "bc2697687e248746d6df353005f3bce18696129c8153556b3b6c6779b37bf15985684f"
)
CLIENT_DATA = bytes.fromhex(
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b"
    "62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4"
)
SERVER_DATA = bytes.fromhex(
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8"
    "fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d"
)
CLIENT_ALERT = bytes.fromhex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3")
SERVER_ALERT = bytes.fromhex("1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9")
CLIENT_TRAFFIC = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"
KEY_LOG = "\n".join(
    f"{label} cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7 {secret}"
    for label, secret in {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET": (
            "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21"
        ),
        "SERVER_HANDSHAKE_TRAFFIC_SECRET": (
            "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38"
        ),
        "CLIENT_TRAFFIC_SECRET_0": CLIENT_TRAFFIC,
        "SERVER_TRAFFIC_SECRET_0": (
            "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"
        ),
    }.items()
)
HANDSHAKE = [
    (UP, CLIENT_HELLO),
    (DOWN, SERVER_HELLO),
    (DOWN, SERVER_FLIGHT),
    (UP, CLIENT_FINISHED),
    (DOWN, TICKET),
]


def opened(records: list[tuple[Direction, bytes]]) -> TlsDecryption:
    secrets = Secrets()
    secrets.add(KEY_LOG.encode())
    conversation = TlsDecryption(secrets=secrets)
    for direction, record in records:
        assert conversation.feed(direction, record) == len(record)
    return conversation


def test_the_published_trace_is_opened() -> None:
    conversation = opened(
        [
            *HANDSHAKE,
            (UP, CLIENT_DATA),
            (DOWN, SERVER_DATA),
            (UP, CLIENT_ALERT),
            (DOWN, SERVER_ALERT),
        ]
    )
    said = [(piece.direction, piece.data, piece.ended) for piece in conversation.plaintext]
    assert said == [
        (UP, bytes(range(50)), False),
        (DOWN, bytes(range(50)), False),
        (UP, b"", True),
        (DOWN, b"", True),
    ]
    details = conversation.details()
    assert isinstance(details, TlsDetails)
    assert details.certificate is not None
    assert (details.certificate.subject, details.certificate.key) == ("CN=rsa", "RSA-1024")


def expanded(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 §7.1), by cryptography."""
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret)


def encrypted(secret: bytes, number: int, kind: int, content: bytes, padding: int = 0) -> bytes:
    """The record that a sender of TLS_AES_128_GCM_SHA256 would send (RFC 8446 §5.2)."""
    inner = content + bytes([kind]) + bytes(padding)
    header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
    iv = int.from_bytes(expanded(secret, b"iv", 12), "big")
    nonce = (iv ^ number).to_bytes(12, "big")
    return header + AESGCM(expanded(secret, b"key", 16)).encrypt(nonce, inner, header)


def test_keys_are_updated_as_often_as_the_sender_says_so() -> None:
    secret = bytes.fromhex(CLIENT_TRAFFIC)
    update, records = b"\x18\0\0\1\0", []
    for number in range(3):
        records.append(
            (UP, encrypted(secret, 0, 23, b"under key %d" % number, padding=number * 50))
        )
        records.append((UP, encrypted(secret, 1, 22, update)))
        secret = expanded(secret, b"traffic upd", 32)
    conversation = opened([*HANDSHAKE, *records])
    assert [piece.data for piece in conversation.plaintext] == [
        b"under key 0",
        b"under key 1",
        b"under key 2",
    ]


def test_messages_may_be_cut_anywhere_by_records() -> None:
    secret = bytes.fromhex(CLIENT_TRAFFIC)
    halves = [(UP, encrypted(secret, 0, 22, b"\x18\0")), (UP, encrypted(secret, 1, 22, b"\0\1\0"))]
    secret = expanded(secret, b"traffic upd", 32)
    conversation = opened([*HANDSHAKE, *halves, (UP, encrypted(secret, 0, 23, b"after"))])
    assert [piece.data for piece in conversation.plaintext] == [b"after"]


def test_a_record_of_padding_alone_is_a_protocol_error() -> None:
    secret = bytes.fromhex(CLIENT_TRAFFIC)
    with pytest.raises(ProtocolError, match="without a type"):
        opened([*HANDSHAKE, (UP, encrypted(secret, 0, 0, b"", padding=9))])


def test_a_record_that_does_not_authenticate_changes_nothing() -> None:
    suite = suite_of(0x1301)
    assert suite
    secret = bytes.fromhex(CLIENT_TRAFFIC)
    protection = protection_1_3(suite, secret)
    with pytest.raises(NotAuthentic):
        protection.open(Record(encrypted(secret, 1, 23, b"too early")))
    assert protection.open(Record(encrypted(secret, 0, 23, b"first"))) == (23, b"first")
    assert protection.open(Record(encrypted(secret, 1, 23, b"second"))) == (23, b"second")


def test_a_record_of_any_size_that_is_none_is_not_authentic() -> None:
    for number in (0x009C, 0xC09E, 0xC0A2, 0xCCA8, 0x002F, 0xC028):
        for encrypt_then_mac in (False, True):
            suite = suite_of(number)
            assert suite
            protection = protection_1_2(
                suite,
                bytes(48),
                client_random=bytes(32),
                server_random=bytes(32),
                of_client=True,
                encrypt_then_mac=encrypt_then_mac,
            )
            for size in range(0, 66, 3):
                with pytest.raises(NotAuthentic):
                    protection.open(Record(b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size)))


def test_a_suite_says_how_its_records_are_protected() -> None:
    for number, suite in (
        (0x1302, Suite(mode="GCM", key_bytes=32, hash="sha384")),
        (0x1305, Suite(mode="CCM8", key_bytes=16, hash="sha256")),
        (0xC030, Suite(mode="GCM", key_bytes=32, hash="sha384")),
        (0xC09C, Suite(mode="CCM", key_bytes=16, hash="sha256")),
        (0xC0AF, Suite(mode="CCM8", key_bytes=32, hash="sha256")),
        (0xCCA9, Suite(mode="CHACHA20", key_bytes=32, hash="sha256")),
        (0x002F, Suite(mode="CBC", key_bytes=16, hash="sha256", mac="sha1")),
        (0x003D, Suite(mode="CBC", key_bytes=32, hash="sha256", mac="sha256")),
        (0xC028, Suite(mode="CBC", key_bytes=32, hash="sha384", mac="sha384")),
        (0x008C, Suite(mode="CBC", key_bytes=16, hash="sha256", mac="sha1")),
        (0x0005, None),
        (0x000A, None),
        (0x0084, None),
        (0xC05C, None),
        (0x003B, None),
        (0x0A0A, None),
    ):
        assert suite_of(number) == suite
