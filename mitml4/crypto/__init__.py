"""What TLS computes: cipher suites, the key schedule, records, key exchange, signatures."""
