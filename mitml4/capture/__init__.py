"""Captures, read and written: files to packets, packets to streams, streams to protocol stacks."""
