"""Which process has opened a connection."""
