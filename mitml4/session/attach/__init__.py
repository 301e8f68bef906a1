"""Programs that run already: how they are found, and how they trust the CA."""
