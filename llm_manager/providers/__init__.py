"""Providers: one short file each, found by their kind in the registry."""
