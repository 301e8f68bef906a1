"""A small network to try mitml4 on: namespaces, servers of our own, and a machine's state as text.

`mitml4 demo` and the end-to-end tests run on it. Nothing of it touches the host's network, and all
of it is gone when the process ends.
"""
