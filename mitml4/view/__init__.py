"""Shows the flows of a file: as a report in HTML, or as text."""
