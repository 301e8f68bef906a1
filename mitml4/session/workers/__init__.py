"""Processes that carry the flows of a session (`--workers`)."""
