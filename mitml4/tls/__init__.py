"""TLS: the authority and the stores that trust it, the mirrored leaf, contexts, verification, and
the stream."""
