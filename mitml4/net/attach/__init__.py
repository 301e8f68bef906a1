"""The network and the files of programs that run already in other namespaces."""
