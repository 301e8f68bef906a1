"""Commands and replies in order, with and without a server that greets."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.protocols.conversation import Direction, LayerContext
from mitml4.protocols.parts.login import AUTHENTICATION, GREETING, InOrder

UP, DOWN = Direction.UP, Direction.DOWN
GREETED, SILENT = [GREETING, b"A", b"B", None], [b"A", b"B", None]


class Commands(InOrder):
    """Remembers which command each reply belongs to."""

    name = "commands"

    def __init__(self, *, greets: bool, greets_again: bool, stack: tuple[str, ...]) -> None:
        kind = type(self)
        kind.greets, kind.greets_again = greets, greets_again
        super().__init__(context=LayerContext(stack=stack))
        self.replies: list[bytes | None] = []

    def client_line(self, line: bytes) -> None:
        if self.is_response(line):
            return
        verb, _, argument = line.partition(b" ")
        if verb == b"AUTH":
            self.begin_authentication(argument)
        else:
            self.sent(verb)

    def server_line(self, line: bytes) -> None:
        if line != b"go on":
            self.replies.append(self.replied())


@pytest.mark.parametrize(
    ("greets", "greets_again", "stack", "expected"),
    [
        (True, False, (), GREETED),
        (True, False, ("tls",), GREETED),
        (True, False, ("commands", "tls"), SILENT),
        (True, True, ("commands", "tls"), GREETED),
        (False, False, (), SILENT),
        (False, False, ("commands", "tls"), SILENT),
    ],
)
def test_a_reply_belongs_to_the_oldest_command_and_the_first_to_the_greeting(
    converse: Any, greets: bool, greets_again: bool, stack: tuple[str, ...], expected: list[Any]
) -> None:
    for chunk in (None, 1):
        conversation = Commands(greets=greets, greets_again=greets_again, stack=stack)
        converse(conversation, [(UP, b"A\nB\n"), (DOWN, b"reply\n" * len(expected))], chunk=chunk)
        assert conversation.replies == expected


def test_lines_are_responses_until_the_authentication_is_replied_to(converse: Any) -> None:
    conversation = Commands(greets=False, greets_again=False, stack=())
    script = [(UP, b"AUTH LOGIN\n"), (DOWN, b"go on\n"), (UP, b"YWxpY2U=\nA\n")]
    converse(conversation, [*script, (DOWN, b"no\n"), (UP, b"B\n"), (DOWN, b"yes\n")])
    assert conversation.username == b"alice"
    assert conversation.replies == [AUTHENTICATION, b"B"]
