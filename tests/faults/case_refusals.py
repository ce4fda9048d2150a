"""Answers that say no, and networks that answer instead of the server."""

from __future__ import annotations

from llm_manager import (
    AuthenticationError,
    InvalidRequestError,
    InvalidResponseError,
    PermissionDeniedError,
    ProviderAPIError,
    ProviderOverloadedError,
    RateLimitError,
    RequestTimeoutError,
)

from . import scripts
from .fault import Fault, Seen, failed, fails, lost
from .server import Script

_ANSWERED = dict.fromkeys(("connecting", "first", "worked"), "connected (recovered)")
_LIMITED = dict.fromkeys(("connecting", "first", "worked"), "degraded (rate_limited)")
_PORTAL = lost("captive_portal")


def _no(status: int, seen: Seen, what: str = "", **more: object) -> Fault:
    return Fault(
        name=f"status_{status}",
        what=f"status {status}{what and ': '}{what}",
        script=scripts.says(status),
        everywhere=True,
        seen=seen,
        **more,  # type: ignore[arg-type]
    )


def _later(name: str, what: str, script: Script) -> Fault:
    # What it asks for is more than the second that the tests allow: the error comes at once.
    return Fault(
        name=name,
        what=f"status 429, {what}",
        script=script,
        everywhere=True,
        seen=fails(RateLimitError, http=429, attempts=1, retry_after_s=7.0, **_LIMITED),
    )


_WRONG_ADDRESS = {**_ANSWERED, "connecting": "failed (invalid_config)"}
_IN_CONFLICT = {**_ANSWERED, "connecting": "reconnecting (server_error)"}
_TRIED_TWICE = {"attempts": 2, **lost("server_error")}

REFUSALS = (
    _no(401, fails(AuthenticationError, http=401, **failed("auth_invalid")), "the key is wrong"),
    Fault(
        name="repeats_key",
        what="status 401, with the key in its text and in its headers",
        script=scripts.repeats_key,
        everywhere=True,
        seen=fails(AuthenticationError, http=401, **failed("auth_invalid")),
        says="***",
    ),
    _no(403, fails(PermissionDeniedError, http=403, **failed("forbidden"))),
    _no(
        404,
        fails(ProviderAPIError, "not_found", 404, **_WRONG_ADDRESS),
        "a wrong `base_url`",
        says="check base_url: there is nothing at http://127.0.0.1:",
    ),
    _no(408, fails(RequestTimeoutError, http=408, **lost("timeout"))),
    _no(409, fails(ProviderAPIError, http=409, attempts=2, **_IN_CONFLICT)),
    _no(413, fails(InvalidRequestError, http=413, **_WRONG_ADDRESS), "the request is too large"),
    _no(422, fails(InvalidRequestError, http=422, **_WRONG_ADDRESS)),
    _no(429, fails(RateLimitError, http=429, **_LIMITED)),
    Fault(
        name="retry_after_soon",
        what="status 429, `retry-after-ms` of a moment",
        script=scripts.says(429, retry_after_ms="300"),
        everywhere=True,
        seen=fails(RateLimitError, http=429, retry_after_s=0.3, **_LIMITED),
    ),
    _later("retry_after_seconds", "`retry-after` in seconds", scripts.says(429, retry_after="7")),
    _later("retry_after_date", "`retry-after` as a date", scripts.come_back_at),
    _later("retry_after_ms", "`retry-after-ms`", scripts.says(429, retry_after_ms="7000")),
    _later(
        "ratelimit_reset",
        "`x-ratelimit-reset`",
        scripts.says(429, x_ratelimit_remaining="0", x_ratelimit_reset="7"),
    ),
    _no(500, fails(ProviderAPIError, http=500, **_TRIED_TWICE)),
    _no(502, fails(ProviderAPIError, http=502, **_TRIED_TWICE)),
    Fault(
        name="page_of_a_gateway",
        what="status 502 with a web page",
        script=scripts.page_of_a_gateway,
        everywhere=True,
        seen=fails(ProviderAPIError, http=502, **_TRIED_TWICE),
        says="502 Bad Gateway",
    ),
    _no(503, fails(ProviderOverloadedError, http=503, **lost("overloaded"))),
    _no(529, fails(ProviderOverloadedError, http=529, **lost("overloaded"))),
    Fault(
        name="loading",
        what="status 503: the server is loading its model",
        script=scripts.loading,
        everywhere=True,
        seen=fails(ProviderOverloadedError, "loading", 503, **lost("loading")),
        says="loading the model",
    ),
)

NETWORKS = (
    Fault(
        name="web_page",
        what="a web page with status 200",
        script=scripts.web_page,
        everywhere=True,
        seen=fails(InvalidResponseError, "captive_portal", **_PORTAL),
        says="Sign in to HotelNet",
    ),
    Fault(
        name="sign_in_first",
        what="status 511",
        script=scripts.sign_in_first,
        everywhere=True,
        seen=fails(InvalidResponseError, "captive_portal", 511, **_PORTAL),
        says="sign in to the network",
    ),
    Fault(
        name="sends_elsewhere",
        what="a redirect to another server, where the key does not go",
        script=scripts.sends_elsewhere,
        everywhere=True,
        seen=fails(InvalidResponseError, "captive_portal", 302, **_PORTAL),
        says="sent on to another server",
    ),
)
