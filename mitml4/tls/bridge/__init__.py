"""The TLS bridge: a connection that is relayed message by message. Sans-IO."""
