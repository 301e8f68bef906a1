"""What the live table, `view` and `detect` share of a terminal: keys, lines, columns, details."""
