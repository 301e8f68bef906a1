"""The kernel's side: rules, listeners, sockets, byte streams, network namespaces."""
