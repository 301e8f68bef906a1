"""What is tried before it is done, where the host never sees it."""
