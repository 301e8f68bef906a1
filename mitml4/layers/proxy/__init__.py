"""The server of a proxy: it answers HTTP, SOCKS4, SOCKS4a and SOCKS5 on one connection."""
