"""Tables of flows: the live table, the table at the end of a session, the table of a capture.

`model` holds the data of a session's tables, `view` renders it as lines of text, and `terminal`
draws the lines.
"""
