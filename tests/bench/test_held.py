"""The session that holds many connections for a measurement."""

from __future__ import annotations

import subprocess
import sys

from bench.held import LOOK_AT_ALL


def test_a_session_takes_its_limits() -> None:
    asked = LOOK_AT_ALL.removesuffix("main()\n") + "print(Limits.of_machine(1))"
    done = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True)
    assert "at a time" in done.stdout
