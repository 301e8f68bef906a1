"""Secrets in protocols of text: SMTP, POP3, IMAP, ManageSieve, NNTP, FTP, IRC, XMPP, and others.

A SASL dialogue begins with a command that names a mechanism. The lines behind it that are base64
and no command are responses. So the server's side need not be read, of which parts may be shown
earlier or later.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from mitml4.protocols.parts.fields import Reader, Short
from mitml4.protocols.payload import URL_PASSWORD
from mitml4.protocols.secrets.finder import MAX_UNIT, SecretFinder
from mitml4.regex import regex

__all__ = ["Fix", "Ftp", "Imap", "Irc", "ManageSieve", "Nats", "Nntp", "Pop3", "Sip", "Smtp",
           "Stomp", "Xmpp"]  # fmt: skip

_RESPONSE: Final = regex(rb"\"?([A-Za-z0-9+/]+={0,2})\"?")
_NEVER: Final = regex(rb"(?!)")


class Lines(SecretFinder):
    """Reads lines."""

    secret: ClassVar[re.Pattern[bytes]] = _NEVER
    """Matches a line with secrets, which are its groups."""
    sasl: ClassVar[re.Pattern[bytes]] = _NEVER
    """Matches a line that begins a SASL dialogue; its group is the initial response."""
    bare: ClassVar[frozenset[bytes]] = frozenset()
    """Commands without arguments, which look like base64."""

    def __init__(self) -> None:
        super().__init__()
        self._in_dialogue = False

    def read(self, reader: Reader) -> None:
        start = reader.at
        self.line(start, reader.until(b"\n", MAX_UNIT, None).removesuffix(b"\r"))

    def read_rest(self, data: bytes) -> None:
        self.line(0, data.removesuffix(b"\r"))

    def line(self, start: int, line: bytes) -> None:
        """Hide what is secret in a line that begins at `start`."""
        response = _RESPONSE.fullmatch(line) if self._in_dialogue else None
        if response and line.upper() not in self.bare:
            self._hide_groups(start, response)
        elif begins := self.sasl.fullmatch(line):
            self._in_dialogue = True
            self._hide_groups(start, begins)
        elif line != b"=":
            self._in_dialogue = self._in_dialogue and line[:1] == b"{"
            for found in self.secret.finditer(line):
                self._hide_groups(start, found)

    def _hide_groups(self, start: int, found: re.Match[bytes]) -> None:
        for group in range(1, len(found.groups()) + 1):
            if found[group]:
                self.hide(start + found.start(group), start + found.end(group))


class Smtp(Lines):
    """RFC 4954."""

    sasl = regex(rb"AUTH +[^ ]+(?: +([^ =].*))?.*", re.IGNORECASE)
    bare = frozenset(b"DATA EHLO HELO HELP LHLO NOOP QUIT RSET STARTTLS".split())


class Pop3(Lines):
    """RFC 1939, RFC 5034."""

    secret = regex(rb"\A(?:PASS (.*)|APOP +[^ ]+ +(.*))", re.IGNORECASE)
    sasl = regex(rb"AUTH +[^ ]+(?: +([^ =].*))?.*", re.IGNORECASE)
    bare = frozenset(b"AUTH CAPA LAST LIST NOOP QUIT RSET STAT STLS UIDL UTF8".split())


class Nntp(Lines):
    """RFC 4643."""

    secret = regex(rb"\AAUTHINFO +PASS +(.*)", re.IGNORECASE)
    sasl = regex(rb"AUTHINFO +SASL +[^ ]+(?: +([^ =].*))?.*", re.IGNORECASE)
    bare = frozenset(
        b"ARTICLE BODY CAPABILITIES DATE HEAD HELP LAST LIST NEXT POST QUIT SLAVE STARTTLS "
        b"STAT".split()
    )


class Ftp(Lines):
    """RFC 959; RFC 2228 for ADAT."""

    secret = regex(rb"\A(?:PASS|ACCT|ADAT) +(.*)", re.IGNORECASE)


class ManageSieve(Lines):
    """RFC 5804: strings are quoted, or literals on a separate line."""

    sasl = regex(rb"AUTHENTICATE +\"?[^ \"]+\"?(?: +\"?([^ =\"{][^\"]*)\"?)?.*", re.IGNORECASE)
    bare = frozenset(b"CAPABILITY LISTSCRIPTS LOGOUT NOOP STARTTLS UNAUTHENTICATE".split())


class Irc(Lines):
    """RFC 2812, IRCv3's SASL, and what people say to NickServ."""

    secret = regex(
        rb"\A(?::[^ ]+ +)?(?:PASS +:?(.*)|OPER +[^ ]+ +:?(.*)|WEBIRC +:?([^ ]+)"
        rb"|JOIN +[^ ]+ +:?([^ ]+)"
        rb"|(?:NS|NICKSERV|(?:PRIVMSG|SQUERY|NOTICE) +NickServ[^ ]*) +:?"
        rb"(?:IDENTIFY|REGISTER|GHOST|RECOVER|RELEASE|REGAIN|SET +PASSWORD) +(.*)"
        rb"|AUTHENTICATE +:?(?![*+]\Z|(?:PLAIN|LOGIN|EXTERNAL|ANONYMOUS|NTLM|GSSAPI|OAUTHBEARER"
        rb"|XOAUTH2|[A-Z0-9]+[-_][-_A-Z0-9]+)\Z)(.+))",
        re.IGNORECASE,
    )


class Stomp(Lines):
    """STOMP 1.2, "CONNECT Frame"."""

    secret = regex(rb"\Apasscode:(.*)")


class Nats(Lines):
    """The JSON of a CONNECT (docs.nats.io, "Client Protocol")."""

    _MEMBER: Final = regex(rb'"(?:pass|auth_token|jwt|sig)"\s*:\s*"([^"\\]*+(?:\\.[^"\\]*+)*)"')

    def line(self, start: int, line: bytes) -> None:
        if line[:8].upper() == b"CONNECT ":
            for found in self._MEMBER.finditer(line):
                self._hide_groups(start, found)


class Sip(Lines):
    """SIP and RTSP: the header fields of HTTP (RFC 3261 §22), and passwords in URLs."""

    _FIELD: Final = regex(rb"(?:Proxy-)?Authorization[ \t]*:[ \t]*(.*)", re.IGNORECASE)
    _FOLDED: Final = regex(rb"[ \t]+(.*)")

    def line(self, start: int, line: bytes) -> None:
        found = self._FIELD.fullmatch(line)
        if found is None and self._in_dialogue:
            found = self._FOLDED.fullmatch(line)
        self._in_dialogue = found is not None
        for each in (found,) if found else URL_PASSWORD.finditer(line):
            self._hide_groups(start, each)


class Imap(Lines):
    """RFC 9051: LOGIN has two strings, each an atom, quoted, or a literal behind its length."""

    sasl = regex(rb"[^ ]+ AUTHENTICATE +[^ ]+(?: +([^ =].*))?.*", re.IGNORECASE)
    _LOGIN: Final = regex(rb"[^ \r\n]+ LOGIN +", re.IGNORECASE)
    _STRING: Final = regex(
        rb'"(?P<quoted>[^"\\\r\n]*+(?:\\.[^"\\\r\n]*+)*)"|\{(?P<length>[0-9]{1,5})\+?\}\r?\n'
        rb'|(?P<atom>[^ "{\r\n]++)'
    )

    def read(self, reader: Reader) -> None:
        end = reader.data.find(b"\n", reader.at)
        if end < 0:
            raise Short
        if login := self._LOGIN.match(reader.data, reader.at):
            self._in_dialogue = False
            reader.at = login.end()
            self._string(reader)
            start, end = self._string(reader)
            self.hide(start, end)
            reader.until(b"\n", MAX_UNIT, None)
        else:
            super().read(reader)

    def read_rest(self, data: bytes) -> None:
        if login := self._LOGIN.match(data):
            self.hide(login.end(), len(data))
        else:
            super().read_rest(data)

    def _string(self, reader: Reader) -> tuple[int, int]:
        """Read a string and the blanks behind it; where it stands. Empty where there is none."""
        found = self._STRING.match(reader.data, reader.at)
        if found is None:
            return reader.at, reader.at
        reader.at = found.end()
        if found["length"]:
            start = reader.at
            reader.take(int(found["length"]))
            place = start, reader.at
        else:
            place = found.span("quoted" if found["quoted"] is not None else "atom")
        while reader.data[reader.at : reader.at + 1] == b" ":
            reader.at += 1
        return place


class Xmpp(SecretFinder):
    """RFC 6120 §6, XEP-0078, XEP-0114, XEP-0388: the text of an element that logs in."""

    _NAME: Final = regex(rb"<(?:[^\s<>/:]+:)?([^\s<>/!?]+)")
    _SECRET: Final = frozenset(
        {b"auth", b"response", b"initial-response", b"password", b"digest", b"handshake"}
    )

    def __init__(self) -> None:
        super().__init__()
        self._is_secret = False

    def read(self, reader: Reader) -> None:
        start = reader.at
        if reader.data.startswith(b"<", start):
            tag = b"<" + reader.until(b">", MAX_UNIT, None)[1:]
            name = self._NAME.match(tag)
            self._is_secret = bool(name and name[1] in self._SECRET and not tag.endswith(b"/"))
            return
        end = reader.data.find(b"<", start)
        if end < 0:
            raise Short
        reader.at = end
        if self._is_secret:
            self.hide(start, end)

    def read_rest(self, data: bytes) -> None:
        if self._is_secret and not data.startswith(b"<"):
            self.hide(0, len(data))


class Fix(SecretFinder):
    """Password (554) and NewPassword (925) of a Logon."""

    def read(self, reader: Reader) -> None:
        start = reader.at
        value = reader.until(b"\x01", MAX_UNIT, None)
        if value.startswith((b"554=", b"925=")):
            self.hide(start + 4, start + len(value))

    def read_rest(self, data: bytes) -> None:
        if data.startswith((b"554=", b"925=")):
            self.hide(4, len(data))
