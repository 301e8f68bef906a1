"""Finds passwords in what clients send, so that payload can be shown without them."""
