"""Which finder reads which protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mitml4.protocols.secrets import databases, lines, messaging
from mitml4.protocols.secrets.finder import SecretFinder

__all__ = ["CLIENT", "SERVER"]

CLIENT: Final[Mapping[str, type[SecretFinder]]] = {
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
"""For what clients send, by the protocol's name. Telnet is missing: a password in it looks like any
other line."""

SERVER: Final[Mapping[str, type[SecretFinder]]] = {
    "fix": lines.Fix,
    "redis": databases.RedisReplies,
    "rtsp": lines.Sip,
    "sip": lines.Sip,
    "xmpp": lines.Xmpp,
}
"""For what servers send."""
