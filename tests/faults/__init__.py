"""Faults of servers and networks, each a small script, and what the library makes of them."""
