"""What services say in their headers about the rest of an allowance, in all their ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager import RateLimits
from llm_manager.wire.rate_limits import parse_rate_limits

NOW = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        pytest.param(
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            RateLimits(
                requests_left=59, requests_limit=60, requests_reset_at=after(1),
                tokens_left=149984, tokens_limit=150000, tokens_reset_at=after(360),
            ),
            id="openai",
        ),
        pytest.param(
            {
                "X-RateLimit-Remaining-Requests": "14370",
                "X-RateLimit-Reset-Requests": "2m59.56s",
                "X-RateLimit-Remaining-Tokens": "0",
                "X-RateLimit-Reset-Tokens": "7.66s",
            },
            RateLimits(
                requests_left=14370, requests_reset_at=after(179.56),
                tokens_left=0, tokens_reset_at=after(7.66),
            ),
            id="groq, in capitals",
        ),
        pytest.param(
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "2026-11-21T10:00:02Z",
                "anthropic-ratelimit-tokens-limit": "48000",
                "anthropic-ratelimit-tokens-remaining": "48000",
                "anthropic-ratelimit-tokens-reset": "2026-11-21T10:00:00Z",
                "anthropic-ratelimit-input-tokens-limit": "40000",
                "anthropic-ratelimit-input-tokens-remaining": "39000",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-21T12:00:10+02:00",
                "anthropic-ratelimit-output-tokens-limit": "8000",
                "anthropic-ratelimit-output-tokens-remaining": "2000",
                "anthropic-ratelimit-output-tokens-reset": "2026-11-21T10:00:45Z",
            },
            RateLimits(
                requests_left=49, requests_limit=50, requests_reset_at=after(2),
                tokens_left=2000, tokens_limit=8000, tokens_reset_at=after(45),
            ),
            id="anthropic, of which the tightest count of tokens counts",
        ),
        pytest.param(
            {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "3",
             "ratelimit-reset": "12"},
            RateLimits(requests_left=3, requests_limit=100, requests_reset_at=after(12)),
            id="the draft, one header for each",
        ),
        pytest.param(
            {"ratelimit": "limit=10, remaining=0, reset=7"},
            RateLimits(requests_left=0, requests_limit=10, requests_reset_at=after(7)),
            id="the draft, in one header",
        ),
        pytest.param(
            {"RateLimit-Policy": '"burst";q=100;w=60', "RateLimit": '"burst";r=50;t=30'},
            RateLimits(requests_left=50, requests_limit=100, requests_reset_at=after(30)),
            id="the draft, as a structured field",
        ),
        pytest.param(
            {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0",
             "x-ratelimit-reset": str(int(after(60).timestamp() * 1000))},
            RateLimits(requests_left=0, requests_limit=20, requests_reset_at=after(60)),
            id="milliseconds since 1970",
        ),
        pytest.param(
            {"x-ratelimit-remaining": "5", "x-ratelimit-reset": str(int(after(9).timestamp()))},
            RateLimits(requests_left=5, requests_reset_at=after(9)),
            id="seconds since 1970",
        ),
        pytest.param(
            {"x-ratelimit-remaining-tokens": "-12"},
            RateLimits(tokens_left=0),
            id="less than nothing is nothing",
        ),
    ],
)  # fmt: skip
def test_each_habit_is_understood(headers, wanted) -> None:
    assert parse_rate_limits(headers, NOW) == wanted


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("120ms", 0.12),
        ("1h2m3s", 3723),
        ("17", 17),
        ("0s", 0),
        ("4m", 240),
    ],
)
def test_a_reset_is_read_in_each_form(written, seconds) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": written}
    limits = parse_rate_limits(headers, NOW)
    assert limits is not None
    assert limits.requests_reset_at == after(seconds)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json", "retry-after": "7"},
        {"x-ratelimit-remaining-requests": "many"},
        {"x-ratelimit-remaining-requests": "nan"},
        {"x-ratelimit-remaining-requests": ""},
        {"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "1s"},
        {"ratelimit": "remaining=; reset"},
    ],
)
def test_what_says_nothing_about_what_is_left_is_nothing(headers) -> None:
    assert parse_rate_limits(headers, NOW) is None


@pytest.mark.parametrize(
    "reset", ["soon", "1x", "-", "9" * 40, "99999999h", "2026-13-45", "0001-01-01T00:00:00+14:00"]
)
def test_a_reset_that_cannot_be_is_not_said(reset) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    limits = parse_rate_limits(headers, NOW)
    assert limits == RateLimits(requests_left=0)


NAMES = st.sampled_from(
    [
        "ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-remaining",
        "ratelimit-reset", "x-ratelimit-remaining", "x-ratelimit-reset", "X-RateLimit-Limit",
        *(f"x-ratelimit-{field}-{what}" for field in ("limit", "remaining", "reset")
          for what in ("requests", "tokens")),
        *(f"anthropic-ratelimit-{what}-{field}" for field in ("limit", "remaining", "reset")
          for what in ("requests", "tokens", "input-tokens", "output-tokens")),
    ]
)  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.timedeltas().map(lambda span: f"{span.total_seconds():g}s"),
    st.from_regex(r"(\d{1,12}h)?(\d{1,12}m)?(\d{1,12}(\.\d+)?m?s)?", fullmatch=True),
    st.from_regex(r'"\w+";[rtq]=\d+;[rtq]=-?\d+', fullmatch=True),
)


@given(st.dictionaries(NAMES, VALUES, max_size=8))
def test_whatever_the_headers_say_it_never_raises_and_is_sensible(headers) -> None:
    limits = parse_rate_limits(headers, NOW)
    if limits is None:
        return
    for number in (limits.requests_left, limits.tokens_left, limits.requests_limit):
        assert number is None or number >= 0
    for moment in (limits.requests_reset_at, limits.tokens_reset_at):
        assert moment is None or abs(moment - NOW) <= timedelta(days=365)
    assert limits.requests_left is not None or limits.tokens_left is not None


@given(left=st.integers(0, 10**9), limit=st.integers(1, 10**9), seconds=st.integers(0, 30 * 86_400))
def test_what_is_said_plainly_is_read_as_it_is(left, limit, seconds) -> None:
    moment = after(seconds)
    wanted = RateLimits(requests_left=left, requests_limit=limit, requests_reset_at=moment)
    for headers in (
        {
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-reset-requests": f"{seconds}s",
        },
        {
            "anthropic-ratelimit-requests-remaining": str(left),
            "anthropic-ratelimit-requests-limit": str(limit),
            "anthropic-ratelimit-requests-reset": moment.isoformat(),
        },
        {"ratelimit": f"limit={limit}, remaining={left}, reset={seconds}"},
    ):
        assert parse_rate_limits(headers, NOW) == wanted
