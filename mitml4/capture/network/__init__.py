"""From a packet to its TCP segment: link layers, IP and its fragments, tunnels."""
