"""Translates what a server says about a failure into our classes of errors.

Pure functions of status, body and headers.  The status decides first, then the server's code or
type, and its prose only where both leave it open: a 500 that happens to mention a policy is an
outage, not a content filter.

Whatever ends up in an error has passed `redact` and is bounded in length.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from ..errors import (
    AuthenticationError,
    ContentFilteredError,
    ContextWindowExceededError,
    InvalidRequestError,
    InvalidResponseError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderError,
    ProviderOverloadedError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
)
from ..redaction import redact
from .loose import UNREADABLE, decoded, field

MAX_TEXT_CHARACTERS = 500

# Beyond this nothing of a body is looked at; no server explains itself at greater length.
_MAX_BODY_BYTES = 256 * 1024
_MAX_LOOKED_AT_CHARACTERS = 10_000
_MAX_NESTING = 5

_Kind: TypeAlias = type[ProviderError]

_SIGN_IN = (
    "if this network wants you to sign in, do so in a browser; otherwise check base_url and proxy"
)
# What the paths of the dialect of OpenAI end in, which most servers have below /v1.
_BELOW_V1 = ("/models", "/completions", "/responses", "/embeddings")
# Places that are left again; a server that has moved for good says so with other numbers.
_FOR_THE_MOMENT = frozenset({302, 303, 307})


def from_http(
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    url: str = "",
    now_s: float | None = None,
    secrets: Iterable[str] = (),
) -> ProviderError:
    """The error that an HTTP answer stands for.

    Args:
        status: the HTTP status.
        body: the body, or its beginning: JSON, HTML, plain text or nothing.
        headers: the answer's headers, in any case.
        url: what was asked for, if that is known.
        now_s: seconds since 1970, for a ``Retry-After`` that is a date.
        secrets: keys to remove from all texts, besides whatever looks like one.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    words = _words_of_body(body)
    waits_s = parse_retry_after_s(lower, now_s)
    if 300 <= status < 400:
        return _redirected(status, lower.get("location", ""), url, secrets)
    return _error(
        words,
        status=status if status >= 300 else words.status,
        retry_after_s=words.retry_after_s if waits_s is None else waits_s,
        request_id=next((lower[n] for n in _REQUEST_ID_HEADERS if lower.get(n)), None),
        url=_bounded(_without_query(url), secrets, 200),
        secrets=tuple(secrets),
    )


def from_error_object(
    error: object, *, http_status: int | None = None, secrets: Iterable[str] = ()
) -> ProviderError:
    """The error that an error object inside an answer stands for.

    Args:
        error: what the server sent: an object, a list of them, or a text.
        http_status: status of the HTTP answer; where it is 2xx or unknown, a number between 400
            and 599 that the object gives as its code counts instead.
        secrets: keys to remove from all texts.
    """
    words = _Words()
    _collect(error, words)
    if http_status is None or http_status < 300:
        http_status = words.status
    return _error(
        words, status=http_status, retry_after_s=words.retry_after_s, secrets=tuple(secrets)
    )


def error_in(answer: object) -> object | None:
    """The error object inside a decoded answer, or None if it does not look like an error."""
    if isinstance(answer, list):
        # A list of one error; lists of anything else are answers.
        return answer if answer and field(answer[0], "error") else None
    if not isinstance(answer, dict):
        return None
    if answer.get("error"):
        return answer
    result: object = answer.get("base_resp")
    if isinstance(result, dict) and result.get("status_code"):
        return result
    if answer.get("object") == "error" or answer.get("errors") or answer.get("detail"):
        return answer
    says_why = any(answer.get(name) for name in ("code", "type", "status", "error_code"))
    return answer if says_why and isinstance(answer.get("message"), str) else None


def unreadable(
    data: bytes, expected: str, *, why: str | None = None, secrets: Iterable[str] = ()
) -> InvalidResponseError:
    """The error for an answer that is not what the protocol promises.

    Args:
        data: the answer, or the part of it that cannot be read.
        expected: what it should have been, e.g. ``"JSON"``.
        why: what exactly is wrong, if that is known.
        secrets: keys to remove from the text.
    """
    if not data.strip():
        return InvalidResponseError(
            f"the answer is empty instead of {expected}",
            code="empty_response",
            hint="some servers answer so when the prompt is too long",
        )
    if _is_html(data):
        title = _bounded(_title(data) or "without a title", secrets, 100)
        return InvalidResponseError(
            f"the answer is a web page ({title}) instead of {expected}",
            code="captive_portal",
            hint=_SIGN_IN,
        )
    quote = _bounded(data[:400].decode(errors="replace"), secrets, 80)
    reason = f" ({_bounded(why, secrets, 120)})" if why else ""
    return InvalidResponseError(f"the answer is not {expected}{reason}: {quote!r}")


def read_json(data: bytes, what: str) -> Any:
    """The decoded JSON document of a successful answer that is no stream.

    Raises:
        InvalidResponseError: it is not JSON.
        ProviderError: it is an error object.
    """
    try:
        answer = decoded(data)
    except UNREADABLE as error:
        why = str(error)
    else:
        failure = error_in(answer)
        if failure is not None:
            raise from_error_object(failure)
        return answer
    raise unreadable(data, what, why=why)


# ---- when to come back ---------------------------------------------------------------------------


def parse_retry_after_s(headers: Mapping[str, str], now_s: float | None = None) -> float | None:
    """How long the server asks us to wait, in seconds and never negative; None if it does not say.

    Read are ``retry-after-ms``, ``retry-after`` in seconds or as a date, and, without these, when
    a limit is used up, the headers that tell when it is filled again.

    Args:
        headers: the answer's headers, in any case.
        now_s: seconds since 1970; a date is compared with the answer's own ``date`` if there is
            one, so that a wrong clock here does no harm.
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    waits_ms = _number(lower.get("retry-after-ms"))
    if waits_ms is not None:
        return max(0.0, waits_ms / 1000)
    asked = lower.get("retry-after", "")
    waits_s = _number(asked)
    if waits_s is None and asked:
        then_s = _timestamp_s(asked)
        from_s = _timestamp_s(lower.get("date", "")) or now_s
        waits_s = then_s - from_s if then_s is not None and from_s is not None else None
    if waits_s is None:
        waits_s = _refilled_after_s(lower, now_s)
    return None if waits_s is None else max(0.0, waits_s)


def _refilled_after_s(headers: Mapping[str, str], now_s: float | None) -> float | None:
    """When the used-up limits of a rate limit are full again, in seconds from now."""
    waits_s = [
        duration_s
        for what in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{what}")) == 0
        and (duration_s := _duration_s(headers.get(f"x-ratelimit-reset-{what}", ""))) is not None
    ]
    if waits_s:
        return max(waits_s)
    reset = _number(headers.get("x-ratelimit-reset"))
    if reset is None or _number(headers.get("x-ratelimit-remaining")) != 0:
        return None
    # Three habits: milliseconds since 1970, seconds since 1970, seconds from now.
    if reset > 1e9:
        moment_s = reset / 1000 if reset > 1e11 else reset
        return None if now_s is None else moment_s - now_s
    return reset


def _number(text: str | None) -> float | None:
    # Not `float`, which also takes "nan", "1_0" and digits of other scripts.
    if text is None or not re.fullmatch(r"[+-]?\d{1,15}(\.\d{1,15})?", text, re.ASCII):
        return None
    return float(text)


def _timestamp_s(date: str) -> float | None:
    # Loaded late, for it takes 3 ms, and most waits that servers ask for are numbers.
    email_utils = importlib.import_module("email.utils")
    try:
        seconds: float = email_utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return seconds


# Compiled when first used, for compiling takes 1 ms and most programs see few failures.
_DURATION = r"(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)(ms|s))?"
_TRY_AGAIN = r"(?:try again|retry) in ((?:\d{1,6}(?:\.\d{1,9})?(?:ms|[hms]))+)"


def _duration_s(text: str) -> float | None:
    """Seconds of a duration like ``1h2m3.5s``, ``250ms`` or a bare number; None if it is none."""
    seconds = _number(text)
    if seconds is not None:
        return seconds
    match = re.fullmatch(_DURATION, text.strip())
    if match is None or not any(match.groups()):
        return None
    hours, minutes, rest, unit = match.groups()
    rest_s = float(rest or 0) / (1000 if unit == "ms" else 1)
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + rest_s


# ---- what the server says ------------------------------------------------------------------------

_REQUEST_ID_HEADERS = (
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "apim-request-id",
    "x-generation-id",
    "cf-ray",
)


class _Words:
    """What an error body says, whatever its shape."""

    def __init__(self, text: str = "") -> None:
        self.texts = [text] if text else []
        self.codes: list[str] = []
        self.status: int | None = None
        self.retry_after_s: float | None = None
        self.request_id: str | None = None

    @property
    def text(self) -> str:
        return ": ".join(dict.fromkeys(self.texts))[:_MAX_LOOKED_AT_CHARACTERS]

    def add_text(self, value: object) -> None:
        if isinstance(value, str) and value.strip():
            self.texts.append(value.strip())
            match = re.search(_TRY_AGAIN, value, re.IGNORECASE)
            if match and self.retry_after_s is None:
                self.retry_after_s = _duration_s(match[1].lower())

    def add_code(self, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            return
        number = _number(str(value))
        if number is not None and 400 <= number <= 599 and self.status is None:
            self.status = int(number)
        self.codes.append(str(value))


def _words_of_body(body: bytes) -> _Words:
    body = body[:_MAX_BODY_BYTES]
    if _is_html(body):
        return _Words(_title(body))
    words = _Words()
    try:
        _collect(decoded(body), words)
    except UNREADABLE:
        words.add_text(body.decode(errors="replace"))
    return words


def _collect(value: object, words: _Words, depth: int = 0) -> None:
    """Read texts, codes and waits out of an error body of unknown shape into ``words``."""
    if depth > _MAX_NESTING:
        return
    if isinstance(value, str):
        words.add_text(value)
    elif isinstance(value, list):
        for item in value[:5]:
            _collect(item, words, depth + 1)
    elif isinstance(value, dict):
        if "loc" in value and "msg" in value:
            words.add_text(_complaint(value))
            return
        for name in ("code", "type", "status", "reason", "error_code", "error_type", "status_code"):
            words.add_code(value.get(name))
        for name in ("message", "msg", "status_msg", "error_description", "error", "detail",
                     "errors", "metadata", "details", "raw"):  # fmt: skip
            _collect(value.get(name), words, depth + 1)
        delay = value.get("retryDelay", value.get("estimated_time"))
        if isinstance(delay, str | int | float) and words.retry_after_s is None:
            words.retry_after_s = _duration_s(str(delay))
        if isinstance(value.get("request_id"), str):
            words.request_id = value["request_id"]


def _complaint(item: Mapping[str, Any]) -> str:
    """One finding of a validator, as FastAPI lists them."""
    place = item["loc"]
    steps = place if isinstance(place, list) else [place]
    return f"{'.'.join(str(step) for step in steps)}: {item['msg']}"


def _is_html(data: bytes) -> bool:
    return data[:1024].lstrip(b" \t\r\n\xef\xbb\xbf").startswith(b"<")


def _title(html: bytes) -> str:
    """The title of a web page; pages are long, and their titles say it all."""
    text = html[:65536].decode(errors="replace")
    lower = text.lower()
    start = lower.find("<title")
    start = text.find(">", start) + 1 if start >= 0 else 0
    end = lower.find("</title", start) if start else -1
    return " ".join(text[start:end].split()) if end >= 0 else ""


def _bounded(text: str, secrets: Iterable[str], limit: int = MAX_TEXT_CHARACTERS) -> str:
    # Redacted before it is cut: half a key is not recognised any more.
    clean = " ".join(redact(text[:_MAX_LOOKED_AT_CHARACTERS], secrets).split())
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"


# ---- which class it is ---------------------------------------------------------------------------

# Codes and types as the services send them, in the form of `_plain_code`.
_CODES: dict[_Kind, frozenset[str]] = {
    QuotaExceededError: frozenset({
        "insufficientquota", "billinghardlimitreached", "billingnotactive", "insufficientbalance",
        "insufficientcredits", "exceededcurrentquota", "paymentrequired", "arrearage", "billing",
        "quotaexceeded", "spendlimitreached",
    }),
    ContextWindowExceededError: frozenset({
        "contextlengthexceeded", "contextwindowexceeded", "exceedcontextsize",
        "modelcontextwindowexceeded", "contextlength",
    }),
    ContentFilteredError: frozenset({
        "contentfilter", "contentfiltered", "contentpolicyviolation", "datainspectionfailed",
        "responsibleaipolicyviolation", "moderation", "moderationblocked",
    }),
    ModelNotFoundError: frozenset({
        "modelnotfound", "modelnotavailable", "modelnotsupported", "modeldecommissioned",
        "invalidmodel", "deploymentnotfound", "unknownmodel",
    }),
    AuthenticationError: frozenset({
        "invalidapikey", "apikeyinvalid", "incorrectapikey", "missingapikey", "authentication",
        "invalidauthentication", "unauthorized", "unauthenticated",
        "nodbconnection",  # LiteLLM's proxy: a key that it would have to look up, and cannot
    }),
    PermissionDeniedError: frozenset({
        "permission", "permissiondenied", "forbidden", "accessdenied", "insufficientpermissions",
        "unsupportedcountryregionterritory",
    }),
    ProviderOverloadedError: frozenset({
        "overloaded", "engineoverloaded", "serveroverloaded", "modeloverloaded", "overcapacity",
        "capacityexceeded", "servicetiercapacityexceeded", "unavailable", "serviceunavailable",
    }),
    RateLimitError: frozenset({
        "ratelimit", "ratelimited", "ratelimitexceeded", "ratelimitreached", "toomanyrequests",
        "resourceexhausted", "throttling",
    }),
    RequestTimeoutError: frozenset({"timeout", "requesttimeout", "deadlineexceeded"}),
}  # fmt: skip
_CODES_OF_OUTAGES = frozenset({"server", "internal", "internalserver", "upstream", "api"})
_CODES_OF_BAD_REQUESTS = frozenset({
    "invalidrequest", "badrequest", "invalidargument", "validation", "unprocessableentity",
    "unsupportedparameter", "unsupportedvalue", "invalidvalue", "invalidparameter",
    "requesttoolarge",
})  # fmt: skip


def _phrases(*patterns: str) -> str:
    return "|".join(patterns)


def _says(pattern: str, text: str) -> bool:
    # `re` compiles on first use and remembers: importing this module compiles nothing.
    return re.search(pattern, text, re.IGNORECASE) is not None


# Wordings as the services use them, in the order in which they are tried.
_PHRASES: dict[_Kind, str] = {
    ContextWindowExceededError: _phrases(
        r"maximum context length",
        r"maximum prompt length",
        r"maximum model length",
        r"model maximum context",
        r"model token limit",
        r"context[ _](length|size|window|limit)[^.]{0,40} (is )?exceed",
        r"exceeds?( the)?( available| model'?s?)? ?context",
        r"exceeds? the (input )?context (length|window|size|limit)",
        r"exceed context (limit|window)",
        r"context window exceeds limit",
        r"(prompt|input|request) (is )?too long",
        r"prompt exceeds max length",
        r"input token length too long",
        r"input token count[^.]{0,60} exceeds the maximum",
        r"prompt token count[^.]{0,60} exceeds the limit",
        r"reduce the length of (the|your) (messages|prompt|input)",
        r"range of input length should be",
        r"too many tokens",
        r"inputs`? (tokens|must have less than)",
        r"when context the overflows|context overflow",
        r"greater than the context length",
        r"n_keep \(\d+\) >= n_ctx",
    ),
    QuotaExceededError: _phrases(
        r"exceeded your (current quota|monthly included credits)",
        r"insufficient[ _](balance|quota|credits?|funds)",
        r"credit balance is too low",
        r"(requires more|out of|no( more)?|used all( available)?) credits",
        r"payment required",
        r"plan and billing",
        r"billing (details|hard limit|not active)",
        r"account is not active",
        r"spend(ing)? limit",
    ),
    ContentFilteredError: _phrases(
        r"content[ _](management policy|filter|policy|moderation)",
        r"safety (system|filter|settings)",
        r"(input|content|prompt|request)[^.]{0,40} flagged",
        r"inappropriate content|sensitive content",
        r"considered high risk",
        r"violat\w{1,9} (of )?(our|the)? ?usage polic",
    ),
    # Before the models: some of these texts name one that does exist.
    InvalidRequestError: _phrases(
        r"does not support (tool|think|image|chat|completion|insert)", r"no endpoints found that"
    ),
    ModelNotFoundError: _phrases(
        r"^model: \S+$",
        r"models?\b.{0,160}\b(not found|not exist|decommissioned|not available|unknown)",
        r"not found the model",
        r"(unknown|invalid|no such) model",
        r"not a valid model",
        r"no endpoints found for",
        r"no models? (is )?loaded",
        r"unable to access model",
        r"api deployment for this resource does not exist",
        r"server is pinned",
    ),
    AuthenticationError: _phrases(
        r"(invalid|incorrect|missing|no|malformed|expired) (api|access|auth\w*)[ -_]?(key|token)",
        r"api key (is )?(not valid|missing|invalid|required|expired)",
        r"invalid authentication|authentication (failed|fails)",
        r"\bunauthori[sz]ed\b|\bunauthenticated\b|login fail",
    ),
    RateLimitError: _phrases(
        r"rate[ _-]?limit", r"too many requests", r"(requests|tokens) per (min|day)"
    ),
    ProviderOverloadedError: _phrases(
        r"overloaded", r"(at|over|no) capacity", r"(server|system) (is )?busy"
    ),
}
_LOADING = _phrases(r"loading( the)? model", r"model\b.{0,160}\bis (currently )?loading")
_MORE_THAN_A_MINUTES_TOKENS = _phrases(r"request too large.{0,300}tokens per min")
_NOT_VERIFIED = r"organi[sz]ation must be verified"
_TOO_BIG_FOR_MEMORY = _phrases(r"requires more (system |gpu )?memory", r"out of memory")

# What code and wording may still change about the class that the status gives.
_ANY: frozenset[_Kind] = frozenset({*_CODES, InvalidRequestError})
_NARROWER: dict[int, frozenset[_Kind]] = {
    400: _ANY,
    403: frozenset({QuotaExceededError, ContentFilteredError, AuthenticationError, RateLimitError}),
    404: frozenset({ModelNotFoundError, InvalidRequestError}),
    410: frozenset({ModelNotFoundError}),
    413: frozenset({ContextWindowExceededError, RateLimitError}),
    422: frozenset({ContextWindowExceededError, ContentFilteredError, ModelNotFoundError}),
    429: frozenset({QuotaExceededError, ProviderOverloadedError}),
}
_OF_OUTAGES: frozenset[_Kind] = frozenset({ContextWindowExceededError})
_BY_STATUS: dict[int, _Kind] = {
    401: AuthenticationError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: ProviderAPIError,
    407: ProviderConnectionError,
    408: RequestTimeoutError,
    409: ProviderAPIError,
    410: ProviderAPIError,
    425: ProviderAPIError,
    429: RateLimitError,
    451: PermissionDeniedError,
    498: ProviderOverloadedError,
    499: ProviderAPIError,
    503: ProviderOverloadedError,
    511: InvalidResponseError,
    529: ProviderOverloadedError,
}


def _error(
    words: _Words,
    *,
    status: int | None,
    retry_after_s: float | None,
    secrets: tuple[str, ...],
    request_id: str | None = None,
    url: str = "",
) -> ProviderError:
    kind = _kind(words, status, waiting_helps=retry_after_s is not None)
    said = _bounded(words.text, secrets)
    if status is None:
        message = said or "the server reports an error and does not say which"
    else:
        message = f"HTTP {status}: {said}" if said else f"HTTP {status} without an explanation"
    error = kind(
        message,
        http_status=status,
        retry_after_s=retry_after_s,
        provider_code=_bounded(_best_code(words.codes), secrets, 100) or None,
        provider_request_id=_bounded(request_id or words.request_id or "", secrets, 100) or None,
    )
    _refine(error, words, url)
    return error


def _kind(words: _Words, status: int | None, *, waiting_helps: bool) -> _Kind:
    """The class, by status, then code, then wording."""
    allowed: frozenset[_Kind]
    otherwise: _Kind
    if status is None:
        allowed, otherwise = _ANY, ProviderAPIError
    elif status >= 500:
        allowed, otherwise = _OF_OUTAGES, _BY_STATUS.get(status, ProviderAPIError)
    else:
        allowed = _NARROWER.get(status, frozenset())
        otherwise = _BY_STATUS.get(status, InvalidRequestError)
    codes = {_plain_code(code) for code in words.codes}
    for kind, known in _CODES.items():
        if kind in allowed and codes & known:
            return kind
    text = words.text
    for kind, wording in _PHRASES.items():
        if kind not in allowed or not _says(wording, text):
            continue
        # Whoever tells when to come back has not run out of money, whatever the wording: some
        # services speak of a quota when they mean requests per minute.
        if kind is QuotaExceededError and waiting_helps:
            continue
        return kind
    if status is None and codes & _CODES_OF_BAD_REQUESTS:
        return InvalidRequestError
    return otherwise


def _refine(error: ProviderError, words: _Words, url: str) -> None:
    """Set what depends on more than the class: code, hint, and whether to try again."""
    status, text = error.http_status, words.text
    if type(error) is ProviderAPIError:
        if status is None:
            error.retryable = bool({_plain_code(c) for c in words.codes} & _CODES_OF_OUTAGES)
        else:
            error.retryable = status in (409, 425) or (status >= 500 and status != 501)
    if status == 404 and type(error) is ProviderAPIError:
        error.code, error.hint = "not_found", _nothing_at(url)
    elif status == 405:
        error.hint = _nothing_at(url)
    elif status == 407:
        error.code, error.retryable = "proxy", False
        error.hint = "put the user name and the password of the proxy into its address"
    elif status == 511:
        error.code, error.hint = "captive_portal", "sign in to the network first, in a browser"
    elif _says(_NOT_VERIFIED, text):
        error.hint = (
            "verify the organisation at the service, or do without; summaries of reasoning are "
            "switched off with reasoning_summary=None"
        )
    elif isinstance(error, PermissionDeniedError):
        error.hint = "the key may not use this model, or not from this place or organisation"
    elif isinstance(error, ModelNotFoundError):
        error.hint = "see get_available_models() for the models that there are"
    elif isinstance(error, RateLimitError) and _says(_MORE_THAN_A_MINUTES_TOKENS, text):
        error.retryable = False
        error.hint = "this request alone exceeds the limit of tokens per minute; make it shorter"
    elif isinstance(error, ProviderOverloadedError) and _says(_LOADING, text):
        error.code, error.hint = "loading", "the server is loading the model"
    elif error.retryable and _says(_TOO_BIG_FOR_MEMORY, text):
        error.retryable, error.hint = False, "choose a smaller model or a smaller context window"
    elif status == 413 and isinstance(error, InvalidRequestError):
        error.hint = "send smaller or fewer attachments"


def _nothing_at(url: str) -> str:
    """What to do when the server does not know the path; ``url`` may be empty."""
    hint = f"check base_url: there is nothing at {url or 'that address'}"
    path = urlsplit(url).path
    if "/v1/v1/" in path or path.startswith("/v1/api/"):
        return f"{hint}; it must not end in /v1 here"
    if path.endswith(_BELOW_V1) and "/v1/" not in path:
        return f"{hint}; most servers expect it to end in /v1"
    return hint


def _redirected(status: int, location: str, url: str, secrets: Iterable[str]) -> ProviderError:
    target = _bounded(_without_query(location), secrets, 200)
    where = f" to {target}" if target else ""
    if status in _FOR_THE_MOMENT and _host(url) and _host(location) not in (None, _host(url)):
        # The key stays here, whoever it is that wants to have a word first.
        return InvalidResponseError(
            f"HTTP {status}: sent on to another server, {target}",
            code="captive_portal",
            http_status=status,
            hint=_SIGN_IN,
        )
    return ProviderAPIError(
        f"HTTP {status}: the server redirects{where}",
        code="redirected",
        http_status=status,
        hint="set base_url to the new place; redirects are not followed, the key would go along",
    )


def _without_query(url: str) -> str:
    # Without query and fragment: such places carry tokens.
    return re.split(r"[?#]", url, maxsplit=1)[0]


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _plain_code(code: str) -> str:
    """A code without the habits of its sender: ``BadRequestError`` and ``bad_request`` agree."""
    plain = re.sub(r"[^a-z0-9]", "", code[:100].lower())
    return re.sub(r"(error|exception)$", "", plain)


def _best_code(codes: Iterable[str]) -> str:
    """The code that says most: the first word but "error", or else the first number."""
    given = [code for code in codes if code != "error"]
    return next((c for c in given if not c.isdigit()), given[0] if given else "")
