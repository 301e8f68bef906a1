"""Other proxies that connections to servers go through: their URLs, and how they are asked."""
