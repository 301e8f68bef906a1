"""The rules of a session: their text, and how they are loaded and removed."""
