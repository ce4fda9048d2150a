"""What a service says in its headers about the rest of our allowance.

Three habits are read: ``x-ratelimit-remaining-requests`` and its like (OpenAI and who follows it),
``anthropic-ratelimit-requests-remaining`` (Anthropic), and the IETF draft "RateLimit header fields
for HTTP" in both of its forms.  What cannot be read is taken as not said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from ..status import RateLimits
from .failures import _duration_s, _number

# A moment since 1970 in seconds, and in milliseconds; anything smaller is a number of seconds from
# now, of which one beyond a year is a mistake.
_EPOCH_S, _EPOCH_MS = 1e9, 1e11
_YEAR_S = 365 * 86_400.0

# Compiled when first used, for few services write so.
_FIELD = r"""(?:^|[;,])\s*(limit|remaining|reset|[rtq])\s*=\s*"?(\d{1,15})"?"""
_LONG_NAMES = {"r": "remaining", "t": "reset", "q": "limit"}

_Allowance = tuple[int | None, int | None, datetime | None]
"""What is left, of how much, and when there will be more."""

_UNSAID: _Allowance = (None, None, None)


def parse_rate_limits(headers: Mapping[str, str], now: datetime) -> RateLimits | None:
    """What is left of our allowance, or None if the service does not say.

    Where a service counts in several ways at once (tokens read and tokens written), the one of
    which the smaller share is left counts.

    Args:
        headers: the answer's headers, in any case.
        now: the time of day, UTC.
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    lower = {name: value for name, value in lower.items() if "ratelimit" in name}
    if not lower:
        return None
    requests = _tightest(
        [
            _openai(lower, "-requests", now),
            _anthropic(lower, "requests", now),
            _openai(lower, "", now),
            _draft(lower, now),
        ]
    )
    tokens = _tightest(
        [
            _openai(lower, "-tokens", now),
            *(_anthropic(lower, kind, now) for kind in ("tokens", "input-tokens", "output-tokens")),
        ]
    )
    if requests == tokens == _UNSAID:
        return None
    return RateLimits(
        requests_left=requests[0],
        requests_limit=requests[1],
        requests_reset_at=requests[2],
        tokens_left=tokens[0],
        tokens_limit=tokens[1],
        tokens_reset_at=tokens[2],
    )


def _openai(headers: Mapping[str, str], what: str, now: datetime) -> _Allowance:
    return (
        _count(headers.get(f"x-ratelimit-remaining{what}")),
        _count(headers.get(f"x-ratelimit-limit{what}")),
        _moment(headers.get(f"x-ratelimit-reset{what}"), now),
    )


def _anthropic(headers: Mapping[str, str], what: str, now: datetime) -> _Allowance:
    return (
        _count(headers.get(f"anthropic-ratelimit-{what}-remaining")),
        _count(headers.get(f"anthropic-ratelimit-{what}-limit")),
        _moment(headers.get(f"anthropic-ratelimit-{what}-reset"), now),
    )


def _draft(headers: Mapping[str, str], now: datetime) -> _Allowance:
    """``ratelimit: limit=10, remaining=3, reset=7``, ``ratelimit: "default";r=3;t=7``, or one
    header for each."""
    said: dict[str, str] = {}
    for line in (headers.get("ratelimit", ""), headers.get("ratelimit-policy", "")):
        for name, value in re.findall(_FIELD, line, re.IGNORECASE):
            name = name.lower()
            said.setdefault(_LONG_NAMES.get(name, name), value)

    def value_of(name: str) -> str | None:
        return headers.get(f"ratelimit-{name}") or said.get(name)

    return (
        _count(value_of("remaining")),
        _count(value_of("limit")),
        _moment(value_of("reset"), now),
    )


def _tightest(allowances: Iterable[_Allowance]) -> _Allowance:
    """The one of which the smallest share is left; without a limit, the smallest number."""
    known = [each for each in allowances if each[0] is not None]
    return min(known, key=_share_left, default=_UNSAID)


def _share_left(allowance: _Allowance) -> tuple[float, int]:
    left, limit, _ = allowance
    assert left is not None
    return (left / limit if limit else float(left > 0), left)


def _count(text: str | None) -> int | None:
    """A number from 0; ``100, 100;w=10`` begins with the one that counts."""
    number = _number((text or "").partition(",")[0].partition(";")[0].strip())
    return None if number is None else max(0, int(number))


def _moment(text: str | None, now: datetime) -> datetime | None:
    """``6m0s``, ``1714500000`` or ``2026-11-21T10:00:00Z`` as a moment."""
    if not text:
        return None
    seconds = _duration_s(text)
    if seconds is None:
        seconds = _seconds_until(text, now)
    elif seconds >= _EPOCH_S:
        since_1970_s = seconds / 1000 if seconds >= _EPOCH_MS else seconds
        seconds = since_1970_s - now.timestamp()
    if seconds is None or not -_YEAR_S <= seconds <= _YEAR_S:
        return None
    return now + timedelta(seconds=seconds)


def _seconds_until(text: str, now: datetime) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
