"""mitml4: what is this program saying, to whom, in which protocols, right now."""

__version__ = "0.1.0"
