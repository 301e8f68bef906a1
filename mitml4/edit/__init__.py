"""Editing of traffic: messages that can be changed, and the rules that change them.

Nothing here reads a socket or waits for time. `layers/editing` moves the bytes, and asks an
`Editor` (`editor.py`) what to do with them.
"""
