"""Masks secrets in any text that leaves the process or reaches a log.

Providers echo keys in error bodies, libraries put them into exception texts.  Every text that
comes from outside passes through `redact` before it becomes part of an error or an event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"

# Shapes of keys as the vendors document them, and the places where keys appear in URLs, headers
# and JSON.  The character counts keep ordinary words out.
_KEY_SHAPES = re.compile(
    r"""
      \b(?:sk|pk|rk|gsk|xai|hf|nvapi|pplx|csk|r8|key)[-_][A-Za-z0-9_\-*]{8,}   # sk-..., gsk_...
    | \bAIza[A-Za-z0-9_\-]{20,}                                              # Google
    | (?<=earer\ )[^\s"',}\]]{4,}                                            # Bearer ...
    | (?<=[?&]key=)[^\s&"']+                                                 # ?key=...
    | (?<=://)[^\s/@:]+:[^\s/@]+(?=@)                                        # user:password@host
    """,
    re.VERBOSE,
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` with each of ``secrets``, and whatever looks like a key, replaced by ``***``."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    return _KEY_SHAPES.sub(MASK, text)
