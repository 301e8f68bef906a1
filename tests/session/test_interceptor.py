"""What a session opens: what the policy says, and no more than the authority may sign for."""

from __future__ import annotations

import pytest

from mitml4.protocols.conversation import Target
from mitml4.session.config import SessionConfig
from mitml4.session.interceptor import tls_interceptor
from mitml4.session.policy import HostPattern, Policy
from mitml4.tls.ca import CertificateAuthority

SERVER = Target("192.0.2.1", 443)


async def decision(
    domains: tuple[str, ...], sni: str | None, target: Target = SERVER, policy: Policy | None = None
) -> tuple[str, str]:
    authority = CertificateAuthority.generate(permit_domains=domains)
    interceptor, _ = tls_interceptor(SessionConfig(), authority, None, (policy or Policy()).decide)
    named = [Target(sni, target.port)] if sni else []
    return interceptor.policy((*named, target, SERVER))


async def test_an_authority_for_all_leaves_it_to_the_policy() -> None:
    assert await decision((), None) == ("intercept", "")
    assert await decision((), "anything.test") == ("intercept", "")


@pytest.mark.parametrize(
    ("sni", "target"),
    [
        ("example.com", SERVER),
        ("www.Example.COM.", SERVER),
        ("a.b.example.org", SERVER),
        (None, Target("www.example.com", 443)),
    ],
)
async def test_what_the_authority_may_sign_for_is_opened(sni: str | None, target: Target) -> None:
    assert await decision(("example.com", "example.org"), sni, target) == ("intercept", "")


@pytest.mark.parametrize(
    ("sni", "target"),
    [
        ("badexample.com", SERVER),
        ("other.test", Target("www.example.com", 443)),
        (None, SERVER),
        (None, Target("other.test", 443)),
    ],
)
async def test_what_it_may_not_sign_for_is_passed_through(sni: str | None, target: Target) -> None:
    assert await decision(("example.com",), sni, target) == ("passthrough", "--permit-domain")


async def test_what_is_blocked_is_blocked_all_the_same() -> None:
    policy = Policy(block=(HostPattern.parse("*.test"),))
    assert await decision(("example.com",), "a.test", policy=policy) == ("block", "--block *.test")
