"""The flows of a session: how many are accepted, how each runs, and where it connects."""
