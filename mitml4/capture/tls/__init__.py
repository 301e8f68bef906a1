"""TLS opened with secrets that are known: key logs, cipher suites, records, the conversation."""
