"""TLS: the authority, the mirrored leaf, mirrored OpenSSL contexts, and the stream."""
