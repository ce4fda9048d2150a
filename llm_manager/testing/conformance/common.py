"""What several checks share."""

from __future__ import annotations

from ...messages import Usage
from .base import Conformance
from .wire import Wanted


class CommonChecks(Conformance):
    """Small things that checks are made of."""

    wanted = Wanted(usage=Usage(prompt_tokens=11, completion_tokens=3))
