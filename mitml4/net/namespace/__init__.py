"""The network namespace of a command: how it is created, what leaves it, and the command inside."""
