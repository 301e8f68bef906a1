"""Rules and scripts of a session."""
