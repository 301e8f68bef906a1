"""Which finder reads which protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mitml4.protocols.secrets import databases, lines, messaging
from mitml4.protocols.secrets.finder import SecretFinder

__all__ = ["FINDERS"]

FINDERS: Final[Mapping[str, type[SecretFinder]]] = {
    "amqp": messaging.Amqp,
    "cassandra": databases.Cassandra,
    "fix": lines.Fix,
    "ftp": lines.Ftp,
    "imap": lines.Imap,
    "irc": lines.Irc,
    "kafka": messaging.Kafka,
    "ldap": databases.Ldap,
    "managesieve": lines.ManageSieve,
    "memcached": databases.Memcached,
    "mongodb": databases.Mongodb,
    "mqtt": messaging.Mqtt,
    "mysql": databases.Mysql,
    "nats": lines.Nats,
    "nntp": lines.Nntp,
    "pop3": lines.Pop3,
    "postgresql": databases.Postgresql,
    "redis": databases.Redis,
    "rtsp": lines.Sip,
    "sip": lines.Sip,
    "smtp": lines.Smtp,
    "stomp": lines.Stomp,
    "tds": databases.Tds,
    "xmpp": lines.Xmpp,
}
"""By the protocol's name. Telnet is missing: a password in it looks like any other line."""
