"""Certificates with faults, as the servers of the end-to-end tests show them."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def faulty() -> SimpleNamespace:
    """What faulty_server.py defines."""
    program = Path(__file__).parents[1] / "e2e" / "faulty_server.py"
    return SimpleNamespace(**runpy.run_path(str(program)))
