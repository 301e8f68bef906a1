"""Connections held at their first packet, and let in or refused."""
