"""A session: its rules, its flows, and who is told of them."""
