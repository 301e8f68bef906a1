"""HTTP/2 with editing, without input and output."""
