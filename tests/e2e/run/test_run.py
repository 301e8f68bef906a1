"""`mitml4 run`: what a command sees of it, as a user without power and as root."""

from __future__ import annotations

WEB = "https://www.example/"
CURL = ("curl", "--silent", "--show-error", "--max-time", "10")


def test_a_command_trusts_what_it_is_shown(host, nginx) -> None:
    ended = host.run(*CURL, WEB)
    assert (ended.code, ended.out) == (0, "hello from nginx\n")
    assert ended.stacks == [["tls", "http/2"]]
