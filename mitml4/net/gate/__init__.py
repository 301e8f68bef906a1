"""Connections that are held at their first packet, and then accepted or refused."""
