"""What tests of providers and of apps need: servers that play a script, without a network."""

from .peer import Reply, Request, ScriptedPeer

__all__ = ["Reply", "Request", "ScriptedPeer"]
