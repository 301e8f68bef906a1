"""Families of protocols that are named, and not followed: one rule each, and no facts."""
