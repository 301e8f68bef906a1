"""The rules of others on this host: reading them, and finding those that interfere."""
