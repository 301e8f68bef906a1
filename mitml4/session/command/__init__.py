"""The command of `run`: its start and end, and how it trusts the CA."""
