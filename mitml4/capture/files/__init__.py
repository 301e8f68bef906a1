"""Capture files: pcap and pcapng, plain or compressed, are read, and pcapng is written."""
