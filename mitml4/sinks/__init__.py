"""Consumers of events: the live table, JSON lines, the key log."""
