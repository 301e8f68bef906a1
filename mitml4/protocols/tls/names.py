"""The names of TLS's numbers, as OpenSSL prints them; a number without a name is `0xNNNN`.

In a live session OpenSSL names versions, cipher suites and groups, and a capture of the same
connection must use the same names. The tables have what OpenSSL knows and what older captures
contain; https://www.iana.org/assignments/tls-parameters lists all.
"""

from __future__ import annotations

from typing import Final

from mitml4.remember import remembered

__all__ = [
    "SIGNATURE_ALGORITHMS",
    "cipher_name",
    "extension_name",
    "group_name",
    "is_grease",
    "signature_algorithm_name",
    "version_name",
    "version_names",
    "without_grease",
]

_REMEMBERED: Final = 256
"""The size of caches: a client's hellos repeat, apart from GREASE and the name."""
_MAX_LENGTH: Final = 1024
"""The length of a list or text up to which it is cached."""


def is_grease(value: int) -> bool:
    """Whether a 16-bit value is one of the sixteen GREASE values, 0x?A?A (RFC 8701 §2)."""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


@remembered(_REMEMBERED, _MAX_LENGTH)
def without_grease(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value for value in values if not is_grease(value))


def version_name(version: int) -> str:
    """`TLSv1.2`; a draft of TLS 1.3 is `TLSv1.3-draft28` (they were numbered 0x7fNN)."""
    if version >> 8 == 0x7F:
        return f"TLSv1.3-draft{version & 0xFF}"
    return _VERSIONS.get(version, f"0x{version:04x}")


@remembered(_REMEMBERED, _MAX_LENGTH)
def version_names(versions: tuple[int, ...]) -> tuple[str, ...]:
    """The name of each."""
    return tuple(map(version_name, versions))


def cipher_name(cipher: int) -> str:
    """`TLS_AES_128_GCM_SHA256`, `ECDHE-RSA-AES128-GCM-SHA256`."""
    return _CIPHERS.get(cipher, f"0x{cipher:04x}")


def group_name(group: int) -> str:
    """`x25519`, `secp256r1`, `X25519MLKEM768`."""
    return _GROUPS.get(group, f"0x{group:04x}")


def extension_name(extension: int) -> str:
    """`session_ticket`, as IANA lists it."""
    return _EXTENSIONS.get(extension, f"0x{extension:04x}")


def signature_algorithm_name(algorithm: int) -> str:
    """`ecdsa_secp256r1_sha256`, as RFC 8446 §4.2.3 writes it."""
    return SIGNATURE_ALGORITHMS.get(algorithm, f"0x{algorithm:04x}")


_VERSIONS: Final = {
    0x0002: "SSLv2",
    0x0300: "SSLv3",
    0x0301: "TLSv1",
    0x0302: "TLSv1.1",
    0x0303: "TLSv1.2",
    0x0304: "TLSv1.3",
}

_GROUPS: Final = {
    0x0009: "sect283k1",
    0x000A: "sect283r1",
    0x000B: "sect409k1",
    0x000C: "sect409r1",
    0x000D: "sect571k1",
    0x000E: "sect571r1",
    0x0012: "secp192k1",
    0x0013: "secp192r1",
    0x0014: "secp224k1",
    0x0015: "secp224r1",
    0x0016: "secp256k1",
    0x0017: "secp256r1",
    0x0018: "secp384r1",
    0x0019: "secp521r1",
    0x001A: "brainpoolP256r1",
    0x001B: "brainpoolP384r1",
    0x001C: "brainpoolP512r1",
    0x001D: "x25519",
    0x001E: "x448",
    0x001F: "brainpoolP256r1tls13",
    0x0020: "brainpoolP384r1tls13",
    0x0021: "brainpoolP512r1tls13",
    0x0029: "curveSM2",
    0x0100: "ffdhe2048",
    0x0101: "ffdhe3072",
    0x0102: "ffdhe4096",
    0x0103: "ffdhe6144",
    0x0104: "ffdhe8192",
    0x0200: "MLKEM512",
    0x0201: "MLKEM768",
    0x0202: "MLKEM1024",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
    0x11EE: "curveSM2MLKEM768",
    0x6399: "X25519Kyber768Draft00",
}

_EXTENSIONS: Final = {
    0: "server_name",
    1: "max_fragment_length",
    2: "client_certificate_url",
    3: "trusted_ca_keys",
    4: "truncated_hmac",
    5: "status_request",
    6: "user_mapping",
    9: "cert_type",
    10: "supported_groups",
    11: "ec_point_formats",
    12: "srp",
    13: "signature_algorithms",
    14: "use_srtp",
    15: "heartbeat",
    16: "application_layer_protocol_negotiation",
    17: "status_request_v2",
    18: "signed_certificate_timestamp",
    19: "client_certificate_type",
    20: "server_certificate_type",
    21: "padding",
    22: "encrypt_then_mac",
    23: "extended_master_secret",
    24: "token_binding",
    25: "cached_info",
    27: "compress_certificate",
    28: "record_size_limit",
    34: "delegated_credential",
    35: "session_ticket",
    41: "pre_shared_key",
    42: "early_data",
    43: "supported_versions",
    44: "cookie",
    45: "psk_key_exchange_modes",
    47: "certificate_authorities",
    48: "oid_filters",
    49: "post_handshake_auth",
    50: "signature_algorithms_cert",
    51: "key_share",
    57: "quic_transport_parameters",
    58: "ticket_request",
    62: "tls_flags",
    13172: "next_protocol_negotiation",
    17513: "application_settings_old",
    17613: "application_settings",
    30032: "channel_id",
    51764: "trust_anchors",
    65037: "encrypted_client_hello",
    65281: "renegotiation_info",
}
"""From IANA's list those that occur, and drafts that browsers use."""

SIGNATURE_ALGORITHMS: Final = {
    0x0101: "rsa_pkcs1_md5",
    0x0201: "rsa_pkcs1_sha1",
    0x0202: "dsa_sha1",
    0x0203: "ecdsa_sha1",
    0x0301: "rsa_pkcs1_sha224",
    0x0302: "dsa_sha224",
    0x0303: "ecdsa_sha224",
    0x0401: "rsa_pkcs1_sha256",
    0x0402: "dsa_sha256",
    0x0403: "ecdsa_secp256r1_sha256",
    0x0501: "rsa_pkcs1_sha384",
    0x0502: "dsa_sha384",
    0x0503: "ecdsa_secp384r1_sha384",
    0x0601: "rsa_pkcs1_sha512",
    0x0602: "dsa_sha512",
    0x0603: "ecdsa_secp521r1_sha512",
    0x0708: "sm2sig_sm3",
    0x0804: "rsa_pss_rsae_sha256",
    0x0805: "rsa_pss_rsae_sha384",
    0x0806: "rsa_pss_rsae_sha512",
    0x0807: "ed25519",
    0x0808: "ed448",
    0x0809: "rsa_pss_pss_sha256",
    0x080A: "rsa_pss_pss_sha384",
    0x080B: "rsa_pss_pss_sha512",
    0x081A: "ecdsa_brainpoolP256r1tls13_sha256",
    0x081B: "ecdsa_brainpoolP384r1tls13_sha384",
    0x081C: "ecdsa_brainpoolP512r1tls13_sha512",
    0x0904: "mldsa44",
    0x0905: "mldsa65",
    0x0906: "mldsa87",
}

_CIPHERS: Final = {
    int(code, 16): name
    for code, name in (
        line.split()
        for line in """
0001 NULL-MD5
0002 NULL-SHA
0003 EXP-RC4-MD5
0004 RC4-MD5
0005 RC4-SHA
0006 EXP-RC2-CBC-MD5
0007 IDEA-CBC-SHA
0008 EXP-DES-CBC-SHA
0009 DES-CBC-SHA
000a DES-CBC3-SHA
000b EXP-DH-DSS-DES-CBC-SHA
000c DH-DSS-DES-CBC-SHA
000d DH-DSS-DES-CBC3-SHA
000e EXP-DH-RSA-DES-CBC-SHA
000f DH-RSA-DES-CBC-SHA
0010 DH-RSA-DES-CBC3-SHA
0011 EXP-EDH-DSS-DES-CBC-SHA
0012 EDH-DSS-DES-CBC-SHA
0013 DHE-DSS-DES-CBC3-SHA
0014 EXP-EDH-RSA-DES-CBC-SHA
0015 EDH-RSA-DES-CBC-SHA
0016 DHE-RSA-DES-CBC3-SHA
0017 EXP-ADH-RC4-MD5
0018 ADH-RC4-MD5
0019 EXP-ADH-DES-CBC-SHA
001a ADH-DES-CBC-SHA
001b ADH-DES-CBC3-SHA
002c PSK-NULL-SHA
002d DHE-PSK-NULL-SHA
002e RSA-PSK-NULL-SHA
002f AES128-SHA
0032 DHE-DSS-AES128-SHA
0033 DHE-RSA-AES128-SHA
0034 ADH-AES128-SHA
0035 AES256-SHA
0038 DHE-DSS-AES256-SHA
0039 DHE-RSA-AES256-SHA
003a ADH-AES256-SHA
003b NULL-SHA256
003c AES128-SHA256
003d AES256-SHA256
0040 DHE-DSS-AES128-SHA256
0041 CAMELLIA128-SHA
0044 DHE-DSS-CAMELLIA128-SHA
0045 DHE-RSA-CAMELLIA128-SHA
0046 ADH-CAMELLIA128-SHA
0067 DHE-RSA-AES128-SHA256
006a DHE-DSS-AES256-SHA256
006b DHE-RSA-AES256-SHA256
006c ADH-AES128-SHA256
006d ADH-AES256-SHA256
0084 CAMELLIA256-SHA
0087 DHE-DSS-CAMELLIA256-SHA
0088 DHE-RSA-CAMELLIA256-SHA
0089 ADH-CAMELLIA256-SHA
008c PSK-AES128-CBC-SHA
008d PSK-AES256-CBC-SHA
0090 DHE-PSK-AES128-CBC-SHA
0091 DHE-PSK-AES256-CBC-SHA
0094 RSA-PSK-AES128-CBC-SHA
0095 RSA-PSK-AES256-CBC-SHA
009c AES128-GCM-SHA256
009d AES256-GCM-SHA384
009e DHE-RSA-AES128-GCM-SHA256
009f DHE-RSA-AES256-GCM-SHA384
00a2 DHE-DSS-AES128-GCM-SHA256
00a3 DHE-DSS-AES256-GCM-SHA384
00a6 ADH-AES128-GCM-SHA256
00a7 ADH-AES256-GCM-SHA384
00a8 PSK-AES128-GCM-SHA256
00a9 PSK-AES256-GCM-SHA384
00aa DHE-PSK-AES128-GCM-SHA256
00ab DHE-PSK-AES256-GCM-SHA384
00ac RSA-PSK-AES128-GCM-SHA256
00ad RSA-PSK-AES256-GCM-SHA384
00ae PSK-AES128-CBC-SHA256
00af PSK-AES256-CBC-SHA384
00b0 PSK-NULL-SHA256
00b1 PSK-NULL-SHA384
00b2 DHE-PSK-AES128-CBC-SHA256
00b3 DHE-PSK-AES256-CBC-SHA384
00b4 DHE-PSK-NULL-SHA256
00b5 DHE-PSK-NULL-SHA384
00b6 RSA-PSK-AES128-CBC-SHA256
00b7 RSA-PSK-AES256-CBC-SHA384
00b8 RSA-PSK-NULL-SHA256
00b9 RSA-PSK-NULL-SHA384
00ba CAMELLIA128-SHA256
00bd DHE-DSS-CAMELLIA128-SHA256
00be DHE-RSA-CAMELLIA128-SHA256
00bf ADH-CAMELLIA128-SHA256
00c0 CAMELLIA256-SHA256
00c3 DHE-DSS-CAMELLIA256-SHA256
00c4 DHE-RSA-CAMELLIA256-SHA256
00c5 ADH-CAMELLIA256-SHA256
00ff TLS_EMPTY_RENEGOTIATION_INFO_SCSV
1301 TLS_AES_128_GCM_SHA256
1302 TLS_AES_256_GCM_SHA384
1303 TLS_CHACHA20_POLY1305_SHA256
1304 TLS_AES_128_CCM_SHA256
1305 TLS_AES_128_CCM_8_SHA256
5600 TLS_FALLBACK_SCSV
c002 ECDH-ECDSA-RC4-SHA
c003 ECDH-ECDSA-DES-CBC3-SHA
c004 ECDH-ECDSA-AES128-SHA
c005 ECDH-ECDSA-AES256-SHA
c006 ECDHE-ECDSA-NULL-SHA
c007 ECDHE-ECDSA-RC4-SHA
c008 ECDHE-ECDSA-DES-CBC3-SHA
c009 ECDHE-ECDSA-AES128-SHA
c00a ECDHE-ECDSA-AES256-SHA
c00c ECDH-RSA-RC4-SHA
c00d ECDH-RSA-DES-CBC3-SHA
c00e ECDH-RSA-AES128-SHA
c00f ECDH-RSA-AES256-SHA
c010 ECDHE-RSA-NULL-SHA
c011 ECDHE-RSA-RC4-SHA
c012 ECDHE-RSA-DES-CBC3-SHA
c013 ECDHE-RSA-AES128-SHA
c014 ECDHE-RSA-AES256-SHA
c015 AECDH-NULL-SHA
c016 AECDH-RC4-SHA
c017 AECDH-DES-CBC3-SHA
c018 AECDH-AES128-SHA
c019 AECDH-AES256-SHA
c01d SRP-AES-128-CBC-SHA
c01e SRP-RSA-AES-128-CBC-SHA
c01f SRP-DSS-AES-128-CBC-SHA
c020 SRP-AES-256-CBC-SHA
c021 SRP-RSA-AES-256-CBC-SHA
c022 SRP-DSS-AES-256-CBC-SHA
c023 ECDHE-ECDSA-AES128-SHA256
c024 ECDHE-ECDSA-AES256-SHA384
c027 ECDHE-RSA-AES128-SHA256
c028 ECDHE-RSA-AES256-SHA384
c02b ECDHE-ECDSA-AES128-GCM-SHA256
c02c ECDHE-ECDSA-AES256-GCM-SHA384
c02f ECDHE-RSA-AES128-GCM-SHA256
c030 ECDHE-RSA-AES256-GCM-SHA384
c035 ECDHE-PSK-AES128-CBC-SHA
c036 ECDHE-PSK-AES256-CBC-SHA
c037 ECDHE-PSK-AES128-CBC-SHA256
c038 ECDHE-PSK-AES256-CBC-SHA384
c039 ECDHE-PSK-NULL-SHA
c03a ECDHE-PSK-NULL-SHA256
c03b ECDHE-PSK-NULL-SHA384
c050 ARIA128-GCM-SHA256
c051 ARIA256-GCM-SHA384
c052 DHE-RSA-ARIA128-GCM-SHA256
c053 DHE-RSA-ARIA256-GCM-SHA384
c056 DHE-DSS-ARIA128-GCM-SHA256
c057 DHE-DSS-ARIA256-GCM-SHA384
c05c ECDHE-ECDSA-ARIA128-GCM-SHA256
c05d ECDHE-ECDSA-ARIA256-GCM-SHA384
c060 ECDHE-ARIA128-GCM-SHA256
c061 ECDHE-ARIA256-GCM-SHA384
c06a PSK-ARIA128-GCM-SHA256
c06b PSK-ARIA256-GCM-SHA384
c06c DHE-PSK-ARIA128-GCM-SHA256
c06d DHE-PSK-ARIA256-GCM-SHA384
c06e RSA-PSK-ARIA128-GCM-SHA256
c06f RSA-PSK-ARIA256-GCM-SHA384
c072 ECDHE-ECDSA-CAMELLIA128-SHA256
c073 ECDHE-ECDSA-CAMELLIA256-SHA384
c076 ECDHE-RSA-CAMELLIA128-SHA256
c077 ECDHE-RSA-CAMELLIA256-SHA384
c094 PSK-CAMELLIA128-SHA256
c095 PSK-CAMELLIA256-SHA384
c096 DHE-PSK-CAMELLIA128-SHA256
c097 DHE-PSK-CAMELLIA256-SHA384
c098 RSA-PSK-CAMELLIA128-SHA256
c099 RSA-PSK-CAMELLIA256-SHA384
c09a ECDHE-PSK-CAMELLIA128-SHA256
c09b ECDHE-PSK-CAMELLIA256-SHA384
c09c AES128-CCM
c09d AES256-CCM
c09e DHE-RSA-AES128-CCM
c09f DHE-RSA-AES256-CCM
c0a0 AES128-CCM8
c0a1 AES256-CCM8
c0a2 DHE-RSA-AES128-CCM8
c0a3 DHE-RSA-AES256-CCM8
c0a4 PSK-AES128-CCM
c0a5 PSK-AES256-CCM
c0a6 DHE-PSK-AES128-CCM
c0a7 DHE-PSK-AES256-CCM
c0a8 PSK-AES128-CCM8
c0a9 PSK-AES256-CCM8
c0aa DHE-PSK-AES128-CCM8
c0ab DHE-PSK-AES256-CCM8
c0ac ECDHE-ECDSA-AES128-CCM
c0ad ECDHE-ECDSA-AES256-CCM
c0ae ECDHE-ECDSA-AES128-CCM8
c0af ECDHE-ECDSA-AES256-CCM8
cca8 ECDHE-RSA-CHACHA20-POLY1305
cca9 ECDHE-ECDSA-CHACHA20-POLY1305
ccaa DHE-RSA-CHACHA20-POLY1305
ccab PSK-CHACHA20-POLY1305
ccac ECDHE-PSK-CHACHA20-POLY1305
ccad DHE-PSK-CHACHA20-POLY1305
ccae RSA-PSK-CHACHA20-POLY1305
""".strip().splitlines()
    )
}
