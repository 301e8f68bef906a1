"""The interface to the kernel: rules, listeners, sockets, byte streams, network namespaces."""
