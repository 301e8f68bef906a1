"""The model of a flow, built from events: of a session, of a file of JSON lines, of a capture."""
