"""The conformance kit: whether a provider does what providers promise, without a network.

::

    class TestMine(ProviderConformance):
        def make_provider(self, base_url, **settings):
            return MyProvider(base_url=base_url, **settings)

        def stream(self, wanted):              # how the vendor would send this answer
            return Reply.sse([{"text": piece} for piece in wanted.text] + [{"end": wanted.finish}])

        def models(self, ids):
            return Reply.json({"models": list(ids)})

pytest collects the checks as tests of that class.  Each one runs on an event loop of its own,
against a server on this machine, and ends with a look at what is left behind: tasks, threads,
connections, requests that were never announced as finished.
"""

from __future__ import annotations

from .answers import AnswerChecks, WireAnswerChecks
from .base import KEY, HttpKit, InProcessKit
from .expect import ConformanceError
from .failures import FailureChecks
from .features import FeatureChecks
from .in_process_features import InProcessFeatureChecks
from .leaving import LeavingChecks, WireLeavingChecks
from .lifecycle import InProcessLifecycleChecks, LifecycleChecks, ServerLifecycleChecks
from .models import ModelChecks, WireModelChecks
from .operations import OperationChecks
from .secrets import SecretChecks
from .wire import Wanted

__all__ = [
    "KEY",
    "ConformanceError",
    "FeatureChecks",
    "InProcessConformance",
    "OperationChecks",
    "ProviderConformance",
    "Wanted",
]


class ProviderConformance(
    LifecycleChecks,
    ServerLifecycleChecks,
    ModelChecks,
    WireModelChecks,
    AnswerChecks,
    WireAnswerChecks,
    WireLeavingChecks,
    FailureChecks,
    FeatureChecks,
    OperationChecks,
    SecretChecks,
    HttpKit,
):
    """All checks for a provider on HTTP; see `HttpKit` for what to write."""


class InProcessConformance(
    LifecycleChecks,
    InProcessLifecycleChecks,
    ModelChecks,
    AnswerChecks,
    LeavingChecks,
    InProcessFeatureChecks,
    InProcessKit,
):
    """All checks for a provider without a server; see `InProcessKit` for what to write."""
