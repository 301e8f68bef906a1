"""The network of a command's own: how it is made, what comes out of it, and the command inside."""
