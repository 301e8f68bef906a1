"""The tool that compares hellos, whose reading of a hello is independent of the bridge's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "hello_mirroring.py"


@pytest.fixture(scope="session")
def mirroring() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hello_mirroring", TOOL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
