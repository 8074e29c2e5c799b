"""From the host to a board: byte streams, the protocol on them, and what the protocol is for."""
