"""The rules of others on this host: what they are, and who of them is in the way."""
