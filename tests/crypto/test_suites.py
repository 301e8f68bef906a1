"""What the names of cipher suites say."""

from __future__ import annotations

from mitml4.crypto.suites import TAG_BYTES, CbcSuite, Suite, cbc_suite_of, suite_of


def test_a_suite_says_how_its_records_are_protected() -> None:
    for number, suite in (
        (0x1302, Suite(mode="GCM", key_bytes=32, hash="sha384")),
        (0x1305, Suite(mode="CCM8", key_bytes=16, hash="sha256")),
        (0xC030, Suite(mode="GCM", key_bytes=32, hash="sha384")),
        (0xC09C, Suite(mode="CCM", key_bytes=16, hash="sha256")),
        (0xC0AF, Suite(mode="CCM8", key_bytes=32, hash="sha256")),
        (0xCCA9, Suite(mode="CHACHA20", key_bytes=32, hash="sha256")),
        (0x002F, CbcSuite(key_bytes=16, hash="sha256", mac="sha1")),
        (0x003D, CbcSuite(key_bytes=32, hash="sha256", mac="sha256")),
        (0xC028, CbcSuite(key_bytes=32, hash="sha384", mac="sha384")),
        (0x008C, CbcSuite(key_bytes=16, hash="sha256", mac="sha1")),
        (0x0005, None),
        (0x000A, None),
        (0x0084, None),
        (0xC05C, None),
        (0x003B, None),
        (0x0A0A, None),
    ):
        assert (suite_of(number) or cbc_suite_of(number)) == suite


def test_tags_are_as_long_as_the_suite_says() -> None:
    for number, tag_bytes in ((0x1301, 16), (0x1303, 16), (0x1305, 8), (0xC0AF, 8)):
        suite = suite_of(number)
        assert suite
        assert TAG_BYTES[suite.mode] == tag_bytes
