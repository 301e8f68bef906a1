"""What a server's chain is found to be, as clients with the same roots would find it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from OpenSSL import crypto

from mitml4.tls import verify
from mitml4.tls.presented import Presented
from mitml4.tls.sent_chain import AUTHORITY_ALONE, Part
from mitml4.tls.verify import Unknown, Verification, Verifier, der

# cryptography's builder, which it points to, does not make what is weak.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NAME = "www.example"
KNOWN = frozenset({0})
NO_ISSUER = "unable to get local issuer certificate"
WEAK = "signature digest algorithm too weak"
NO_KEY_IDENTIFIER = "Missing Authority Key Identifier"
NOT_CRITICAL = "Basic Constraints of CA cert not marked critical"
NO_SUBJECT = "Subject empty and Subject Alt Name extension not critical"
NO_USAGE = "CA cert does not include key usage extension"


def shown(*reasons: str, issuer: Any = KNOWN, strict: str | None = None) -> Verification:
    return Verification(reasons=reasons, issuer=issuer, strict=strict)


def hidden(*reasons: str, issuer: Any = KNOWN, besides: tuple[str, ...] = ()) -> Verification:
    return Verification(reasons=(*besides, *reasons), hidden=reasons, issuer=issuer)


VERDICTS = {
    # what a leaf of ours shows as well
    "sound": shown(),
    "leaf-rsa:2048": shown(),
    "leaf-ed25519": shown(),
    "wildcard": shown(),
    "wrong-order": shown(),
    "superfluous": shown(),
    "self-signed-as-root": shown(),
    "name-constraints-not-critical": shown(),
    "expired": shown("certificate has expired"),
    "not-yet-valid": shown("certificate is not yet valid"),
    "wrong-name": shown("hostname mismatch"),
    "common-name-alone": shown("hostname mismatch"),
    "inner-wildcard": shown("hostname mismatch"),
    "name-with-nul": shown("hostname mismatch"),
    "unknown-root": shown(NO_ISSUER, issuer=Unknown.ISSUER),
    "intermediate-missing": shown(NO_ISSUER, issuer=Unknown.ISSUER),
    "unknown-root-sent": shown("self-signed certificate in certificate chain", issuer=Unknown.ROOT),
    "self-signed": shown("self-signed certificate", issuer=Unknown.ITSELF),
    "sloppy-root": shown(NO_USAGE, strict=NO_USAGE),
    "leaf-without-authority-key": shown(NO_KEY_IDENTIFIER, strict=NO_KEY_IDENTIFIER),
    "intermediate-without-authority-key": shown(NO_KEY_IDENTIFIER, strict=NO_KEY_IDENTIFIER),
    "intermediate-not-critically-one": shown(NOT_CRITICAL, strict=NOT_CRITICAL),
    "no-subject": shown(NO_SUBJECT, strict=NO_SUBJECT),
    # what it would hide
    "leaf-rsa:512": hidden("weak key"),
    "leaf-rsa:1024": hidden("weak key"),
    "leaf-brainpoolp256r1": hidden("unusual key"),
    "intermediate-rsa:512": hidden("weak key"),
    "intermediate-rsa:1024": hidden("weak key"),
    "intermediate-secp192r1": hidden("weak key"),
    "intermediate-brainpoolp256r1": hidden("unusual key"),
    "root-rsa-1024": hidden("weak key"),
    "leaf-md5": hidden(WEAK),
    "leaf-sha1": hidden(WEAK),
    "leaf-sha224": hidden("unusual signature algorithm"),
    "intermediate-md5": hidden(WEAK),
    "intermediate-sha1": hidden(WEAK),
    "version-1": Verification(
        reasons=("certificate of version 1", "hostname mismatch"),
        hidden=("certificate of version 1",),
        issuer=KNOWN,
    ),
    "leaf-is-authority": hidden("CA certificate as a server's"),
    "for-clients-only": hidden("unsuitable certificate purpose", issuer=Unknown.ISSUER),
    "leaf-for-encipherment-only": hidden("unsuitable key usage"),
    "unknown-critical": hidden("unhandled critical extension", issuer=Unknown.ISSUER),
    "policies-critical": hidden("unhandled critical extension"),
    "wrong-authority-key": hidden(NO_ISSUER, issuer=Unknown.ISSUER),
    "intermediate-trusted": hidden("unable to get issuer certificate"),
    "intermediate-expired": hidden("CA certificate has expired"),
    "intermediate-is-none": hidden("invalid CA certificate", issuer=Unknown.ISSUER),
    "intermediate-without-constraints": hidden("invalid CA certificate", issuer=Unknown.ISSUER),
    "intermediate-may-not-sign": hidden("invalid CA certificate", issuer=Unknown.ISSUER),
    "issuer-in-other-letters": hidden("issuer named in another form"),
    "compressed-key": hidden("unusual key"),
    "intermediate-for-netscape": hidden("unsuitable certificate purpose"),
    "intermediate-version-1": hidden("invalid CA certificate", issuer=Unknown.ISSUER),
    "name-constraints": hidden("permitted subtree violation", issuer=Unknown.ISSUER),
    "name-constraints-kept": hidden("unhandled critical extension"),
    "subject-constraints-kept": hidden("constraints of unusual names"),
    "old-cross-certificate": hidden("CA certificate has expired"),
    "path-length": hidden("path length constraint exceeded", issuer=Unknown.ISSUER),
    "must-staple": hidden("no OCSP response"),
    "intermediate-must-staple": hidden("an issuer that requires an OCSP response"),
    "never-valid": hidden(
        "validity that ends before it begins", besides=("certificate is not yet valid",)
    ),
    # the first defect does not cover the others
    "expired+wrong-name": shown("certificate has expired", "hostname mismatch"),
    "expired+unknown-root": shown(NO_ISSUER, "certificate has expired", issuer=Unknown.ISSUER),
    "expired+leaf-sha1": hidden(WEAK, besides=("certificate has expired",)),
    "expired+leaf-rsa:1024": hidden("weak key", besides=("certificate has expired",)),
    "self-signed+leaf-rsa:1024": hidden(
        "weak key", besides=("self-signed certificate",), issuer=Unknown.ITSELF
    ),
    "unknown-root+leaf-sha1": hidden(WEAK, besides=(NO_ISSUER,), issuer=Unknown.ISSUER),
    "unknown-root+intermediate-is-none": hidden(
        "invalid CA certificate", besides=(NO_ISSUER,), issuer=Unknown.ISSUER
    ),
    "leaf-sha1+intermediate-rsa:1024+must-staple": hidden("weak key", WEAK, "no OCSP response"),
}


@pytest.fixture(scope="module")
def roots(faulty: SimpleNamespace) -> Any:
    return faulty.Roots()


def presented(*chain: crypto.X509) -> Presented:
    return Presented(chain=tuple(map(der, chain)))


def of_usual_chain(verification: Verification) -> Verification:
    return replace(verification, sent=AUTHORITY_ALONE)


def trusted(roots: Any) -> list[bytes]:
    return [der(root) for root in roots.trusted]


def test_every_defect_is_found_and_told_from_what_a_leaf_shows(
    faulty: SimpleNamespace, roots: Any
) -> None:
    chains = {each: roots.issue(faulty.combine(each))[0] for each in VERDICTS}
    verifier = Verifier(trusted(roots))
    verdicts = {
        each: of_usual_chain(verifier.verify(presented(*chain), NAME))
        for each, chain in chains.items()
    }
    assert verdicts == VERDICTS


def test_our_chain_has_the_faults_of_the_servers(faulty: SimpleNamespace, roots: Any) -> None:
    verifier = Verifier(trusted(roots))
    ours = Part.AUTHORITY
    for fault, expected in {
        "sound": (ours,),
        "of-the-root": (),
        "leaf-twice": (Part.LEAF, ours),
        "wrong-order": (der(roots.signed["sound"]), ours),
        "superfluous": (der(roots.signed["short"]), ours),
        "unknown-root": AUTHORITY_ALONE,  # which is sent or not, as the verification says
    }.items():
        chain, _ = roots.issue(faulty.combine(fault))
        assert verifier.verify(presented(*chain), NAME).sent == expected, fault


def test_an_issuer_of_the_same_name_is_not_taken_for_the_issuer(
    faulty: SimpleNamespace, roots: Any
) -> None:
    """curl looks for the issuer among what was sent, to find out whom an OCSP response is about."""
    (leaf, intermediate), _ = roots.issue(faulty.combine("sound"))
    above = roots.drafts["sound"]
    namesake = faulty.an_authority("Intermediate", "SECP256R1/another")
    other = faulty.sign(namesake, above.name, above.key)
    verifier = Verifier([*trusted(roots), der(intermediate)])
    for chain, expected in (
        ((leaf, other), (der(other),)),
        ((leaf, other, intermediate), (der(other), Part.AUTHORITY)),
        ((leaf, intermediate, other), (Part.AUTHORITY, der(other))),
    ):
        assert verifier.verify(presented(*chain), NAME).sent == expected


def test_what_is_of_no_use_is_bounded(faulty: SimpleNamespace, roots: Any) -> None:
    chain, _ = roots.issue(faulty.combine("sound"))
    verification = Verifier(trusted(roots)).verify(
        presented(*chain, *[roots.signed["short"]] * 50), NAME
    )
    assert verification == hidden("too many certificates that are of no use")


def test_what_is_not_trusted_by_one_may_be_by_another(faulty: SimpleNamespace, roots: Any) -> None:
    sound, unknown = der(roots.signed["sound"]), der(roots.signed["unknown"])
    verifier = Verifier([sound], [unknown], [sound, unknown], [])
    for fault, issuer in (("sound", {0, 2}), ("unknown-root", {1, 2})):
        chain, _ = roots.issue(faulty.combine(fault))
        assert verifier.verify(presented(*chain), NAME) == shown(issuer=frozenset(issuer))
    (self_signed,), _ = roots.issue(faulty.combine("self-signed"))
    assert verifier.verify(presented(self_signed), NAME).issuer is Unknown.ITSELF
    weak, _ = roots.issue(faulty.combine("leaf-rsa:1024"))
    assert verifier.verify(presented(*weak), NAME) == hidden("weak key", issuer=frozenset({0, 2}))


def test_what_a_root_is_signed_with_says_nothing(faulty: SimpleNamespace) -> None:
    root = faulty.an_authority("An old root", "rsa:2048")
    root.digest = "sha1"
    signed = faulty.sign(root, root.name, root.key)
    leaf = faulty.sign(faulty.a_leaf(), root.name, root.key)
    assert Verifier([der(signed)]).verify(presented(leaf, signed), NAME) == shown()


def test_a_long_chain_is_told(faulty: SimpleNamespace) -> None:
    above = faulty.an_authority("Root", "SECP256R1/root")
    root = faulty.sign(above, above.name, above.key)
    chain: list[crypto.X509] = []
    for number in range(8):
        leaf = faulty.sign(faulty.a_leaf(), above.name, above.key)
        verification = of_usual_chain(Verifier([der(root)]).verify(presented(leaf, *chain), NAME))
        assert verification == (shown() if number <= 6 else hidden("certificate chain too long"))
        below = faulty.an_authority(f"Intermediate {number}", f"SECP256R1/{number}")
        chain.insert(0, faulty.sign(below, above.name, above.key))
        above = below


def test_a_malformed_certificate_is_told_whatever_is_wrong_with_it(
    faulty: SimpleNamespace, roots: Any
) -> None:
    """By its serial number (RFC 5280 §4.1.2.2), which is 16 octets of all that is signed."""
    leaf = faulty.a_leaf()
    issuer = roots.drafts["sound"]
    malformed = hidden("malformed certificate")
    for serial in (0, 1 << 160):
        signed = faulty.sign(leaf, issuer.name, issuer.key)
        signed.set_serial_number(serial)
        signed.sign(issuer.key, "sha256")
        verification = Verifier(trusted(roots)).verify(presented(signed), NAME)
        assert of_usual_chain(verification) == malformed


def test_what_openssl_does_not_read_is_malformed(faulty: SimpleNamespace, roots: Any) -> None:
    chain, _ = roots.issue(faulty.combine("sound"))
    leaf, *others = map(der, chain)
    malformed = hidden("malformed certificate", issuer=Unknown.ISSUER)
    for shown_instead in ([b"?", *others], [leaf, b"", *others], [leaf, *others, leaf + b"?"]):
        verification = Verifier(trusted(roots)).verify(Presented(chain=tuple(shown_instead)), None)
        assert verification == malformed


def test_a_staple_is_not_taken_for_a_certificate(faulty: SimpleNamespace, roots: Any) -> None:
    chain, _ = roots.issue(faulty.combine("sound"))
    *shorter, last = map(der, chain)
    verifier = Verifier(trusted(roots))
    assert verifier.verify(presented(*chain), NAME) == shown()
    stapled = verifier.verify(Presented(chain=tuple(shorter), staple=last), NAME)
    assert "invalid OCSP response" in stapled.hidden


def test_a_revocation_is_shown_where_our_leaf_has_a_known_issuer(
    faulty: SimpleNamespace, roots: Any
) -> None:
    verifier = Verifier(trusted(roots))
    for faults, is_shown in (("staple-revoked", True), ("staple-revoked+unknown-root", False)):
        server = faulty.combine(faults)
        chain, issuer = roots.issue(server)
        response = faulty.respond(chain[0], issuer, server)
        verification = verifier.verify(
            Presented(chain=tuple(map(der, chain)), staple=response), NAME
        )
        assert "revoked" in verification.reasons
        assert verification.is_refused
        assert verification.is_revoked == is_shown
        assert ("revoked" in verification.hidden) != is_shown


def test_a_known_chain_is_not_parsed(
    faulty: SimpleNamespace, roots: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, _ = roots.issue(faulty.combine("sound"))
    verifier = Verifier(trusted(roots))
    first = verifier.verify(presented(*chain), NAME)
    monkeypatch.setattr(verify, "_load", None)
    monkeypatch.setattr(verify, "parse", None)
    assert verifier.verify(presented(*chain), NAME) == first


def test_a_chain_is_verified_again_after_a_while(
    faulty: SimpleNamespace, roots: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, _ = roots.issue(faulty.combine("sound"))
    clock = SimpleNamespace(now=0.0)
    verifier = Verifier(trusted(roots), clock=lambda: clock.now)
    examined = []
    monkeypatch.setattr(verifier, "_examine", lambda *args: examined.append(args) or shown())
    for clock.now in (0.0, 1800.0, 3601.0, 3602.0):
        verifier.verify(presented(*chain), NAME)
    assert len(examined) == 2


def test_a_chain_is_verified_again_when_a_certificate_of_it_has_expired(
    faulty: SimpleNamespace, roots: Any
) -> None:
    server = faulty.combine("sound")
    server.intermediate.valid = (faulty.NOW - faulty.DAY, faulty.NOW + timedelta(seconds=1000))
    chain, _ = roots.issue(server)
    verification = Verifier(trusted(roots)).verify(presented(*chain), NAME)
    assert 0 < verification.holds_s <= 1000
    clock = SimpleNamespace(now=0.0)
    verifier = Verifier(trusted(roots), clock=lambda: clock.now)
    first = verifier.verify(presented(*chain), NAME)
    clock.now = first.holds_s - 1
    assert verifier.verify(presented(*chain), NAME) is first
    clock.now = first.holds_s + 1
    assert verifier.verify(presented(*chain), NAME) is not first


def test_no_certificate_is_no_good_one() -> None:
    assert Verifier([]).verify(Presented(), NAME) == shown("no certificate", issuer=Unknown.ISSUER)
