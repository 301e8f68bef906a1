"""The command line: one module per command, their output, and the handling of errors."""
