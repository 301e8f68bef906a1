"""Who is told of the events of a session, and what is said at its end."""
