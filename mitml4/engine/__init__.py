"""The one interpreter of conversations: bytes in, actions out, without a socket.

An `Engine` stands for one depth of one flow. It detects the protocol, follows its conversation and
says what may happen to the bytes of either direction. Three drivers perform its actions:
`layers/converse.py` on two streams, `capture/converse.py` on the bytes of a capture, `replay.py` on
lists.
"""
