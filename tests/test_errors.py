"""What is told of files."""

from __future__ import annotations

import errno
import os

import pytest

from mitml4.errors import CaptureError, MachineError, UsageError, cannot_read
from mitml4.sinks.files import write_failure


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_file_that_the_machine_cannot_read_is_no_wrong_usage(number: int) -> None:
    error = OSError(number, os.strerror(number))
    found = cannot_read(UsageError, "roots.pem", error)
    assert isinstance(found, MachineError)
    assert found.message == f"cannot read roots.pem: {os.strerror(number)}"
    assert found.hint == write_failure("x", error).hint
    assert isinstance(cannot_read(CaptureError, "a.pcap", error), CaptureError)


def test_a_file_that_the_user_has_named_wrongly_is() -> None:
    error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    found = cannot_read(UsageError, "roots.pem", error)
    assert isinstance(found, UsageError)
    assert found.hint == "ls -l roots.pem"
