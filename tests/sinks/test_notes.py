"""Notes on standard error."""

from __future__ import annotations

from mitml4.sinks.notes import Notes
from mitml4.sinks.updates import Note


def test_a_note_is_one_line_that_a_terminal_does_not_obey() -> None:
    """It may have a name from the network, or the path of a file in a container."""
    said: list[str] = []
    Notes(said.append).publish(Note("covered: /opt/\x1b[2J\n/cacert.pem"))
    assert said == [r"note: covered: /opt/\x1b[2J\n/cacert.pem"]
