"""Listeners: what learns from events and changes nothing.

Each is attached to a provider or to a manager, works alone, and costs nothing while it is not.
"""
