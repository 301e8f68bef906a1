"""What happens to a bridge at one depth: dispatch, then converse, open TLS, or relay."""
