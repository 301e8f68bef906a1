"""What happens to a bridge at one depth: follow what comes, end TLS, or relay unseen."""
