"""The rules of a session: what they say, how they come into the kernel, and how they go away."""
