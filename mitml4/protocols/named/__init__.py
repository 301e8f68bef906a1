"""Families of protocols that are named but not followed: one rule each, and no details."""
