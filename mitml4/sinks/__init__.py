"""Consumers of events: tables, lines, JSON lines, HAR, pcapng and the key log (sink.py)."""
