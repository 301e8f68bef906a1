"""A small network for trying mitml4: namespaces, servers, and a machine's state as text.

`mitml4 demo` and the end-to-end tests use it. It does not touch the host's network, and all of it
is removed when the process ends.
"""
