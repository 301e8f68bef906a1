"""Editing of flows: HTTP, WebSocket and other protocols are ended on both sides.

Between the layers that observe a flow and its server there is a connection in memory (`layer.py`).
What is behind it reads requests, asks the editor, and speaks to the server. So the events of an
edited flow show what the client has sent and what it was answered.
"""
