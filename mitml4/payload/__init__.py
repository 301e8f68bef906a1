"""What is said in a flow: bodies and messages, decoded and bounded.

budget      how much of it a session and a flow may keep
keep        the first bytes of a body
codings     content codings, undone piece by piece
body        a body: its codings undone, or as it came
deflate     the compressed messages of a WebSocket (permessage-deflate)
grpc        the messages of a gRPC stream
text        text or base64

Nothing here knows a protocol's conversation or a socket. Modules that only `--payload` needs are
imported when they are first used; `LATE_IMPORTS` lists them, for a session that can import nothing
later.
"""
