"""What is decided by where a connection goes: block, pass through, or use another proxy."""
