"""Protocols over UDP: a file each, or a family of them that are only named."""
