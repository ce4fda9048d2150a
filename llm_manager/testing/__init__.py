"""What tests of providers and of apps need: servers and providers that play a script, a
conformance kit for providers, and a pytest plugin.  Nothing of it needs a network.

Importing this package loads nothing; each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conformance import ConformanceError as ConformanceError
    from .conformance import InProcessConformance as InProcessConformance
    from .conformance import ProviderConformance as ProviderConformance
    from .conformance import Wanted as Wanted
    from .network import RealNetworkError as RealNetworkError
    from .peer import Reply as Reply
    from .peer import Request as Request
    from .peer import ScriptedPeer as ScriptedPeer
    from .recorder import EventRecorder as EventRecorder
    from .scripted import ScriptedProvider as ScriptedProvider

_MODULE_OF = {
    "ConformanceError": "conformance",
    "InProcessConformance": "conformance",
    "ProviderConformance": "conformance",
    "Wanted": "conformance",
    "RealNetworkError": "network",
    "Reply": "peer",
    "Request": "peer",
    "ScriptedPeer": "peer",
    "EventRecorder": "recorder",
    "ScriptedProvider": "scripted",
}

__all__ = [
    "ConformanceError",
    "EventRecorder",
    "InProcessConformance",
    "ProviderConformance",
    "RealNetworkError",
    "Reply",
    "Request",
    "ScriptedPeer",
    "ScriptedProvider",
    "Wanted",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
