"""Authorities, and a place for stand-ins of the programs that change stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mitml4.tls.ca import NAME_PREFIX, CertificateAuthority


@pytest.fixture(scope="session")
def authorities() -> list[CertificateAuthority]:
    """Two of the same name, as `ca generate --name X --force` makes them."""
    return [CertificateAuthority.generate(name=f"{NAME_PREFIX}host") for _ in range(2)]


@pytest.fixture
def source(authorities: list[CertificateAuthority], tmp_path: Path) -> Path:
    """The first authority's file of PEM."""
    authorities[0].save(tmp_path / "ca")
    return tmp_path / "ca" / "mitml4-ca.pem"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a shell script in the place of a program; but for basics nothing else is found."""
    tools = tmp_path / "tools"
    tools.mkdir()
    basics = tmp_path / "basics"
    basics.mkdir()
    for name in ("sh", "cat", "rm", "mkdir", "grep", "sed"):
        (basics / name).symlink_to(f"/bin/{name}")
    monkeypatch.setattr(
        "mitml4.tls.stores.store.environment", lambda: {"PATH": f"{tools}:{basics}", "LC_ALL": "C"}
    )

    def put(name: str, script: str) -> None:
        program = tools / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return put
