"""TLS on the wire: records, hellos and certificates, with their names and fingerprints."""
