"""Tests that run in a separate namespace, without any effect on the host."""
