"""The locked versions are those that pyproject.toml permits."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
DEVELOPMENT = PROJECT["dependency-groups"]["dev"]


def locked(name: str) -> dict[str, str]:
    """Name to version."""
    text = (ROOT / "tools/locks" / name).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "required"),
    [("runtime.txt", RUNTIME), ("development.txt", RUNTIME + DEVELOPMENT)],
)
def test_every_dependency_has_a_version_that_is_permitted(name: str, required: list[str]) -> None:
    versions = locked(name)
    for line in required:
        requirement = Requirement(line)
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, line


def test_developers_have_the_versions_of_the_package() -> None:
    development = locked("development.txt")
    assert locked("runtime.txt").items() <= development.items()
