"""Flow sources: where the connections of a session come from."""
