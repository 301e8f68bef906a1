"""mitml4: a transparent man in the middle for TCP that names protocol stacks and decrypts TLS."""

__version__ = "0.1.0"
