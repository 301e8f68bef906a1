"""Flows as tables: the live one, the one that is shown when a session has ended, a capture's.

`model` is what a session's tables know, `view` the model as lines of text, and `terminal` what
these are drawn on.
"""
