"""The command line: a command each, what they say, and how a failure is told."""
