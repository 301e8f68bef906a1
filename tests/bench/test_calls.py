"""Counting calls by part."""

import cProfile

import pytest

from bench.calls import calls_by_part, part_of
from mitml4.tls.bridge.wire import uint16


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/work/mitml4/session/flows/flow.py", "mitml4/session/flows"),
        ("/work/mitml4/tls/bridge/legs.py", "mitml4/tls/bridge"),
        ("mitml4/events.py", "mitml4"),
        ("/venv/lib/python3.11/site-packages/trio/_core/_run.py", "trio"),
        ("<attrs generated methods outcome._impl.Value>", "outcome"),
        ("/usr/lib/python3.11/contextlib.py", "standard library"),
        ("<string>", "standard library"),
    ],
)
def test_a_file_belongs_to_a_folder_or_a_library(path: str, part: str) -> None:
    assert part_of(path) == part


def test_a_c_function_is_in_the_part_of_its_caller() -> None:
    with cProfile.Profile() as profile:
        uint16(5)  # which calls int.to_bytes
    assert calls_by_part(profile)["mitml4/tls/bridge"] == 2
