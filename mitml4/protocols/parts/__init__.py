"""What protocols are built from: ways to read bytes, to detect, and to converse."""
