"""Error answers, as the services send them, become the right class of error."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager.errors import (
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
from llm_manager.wire.failures import (
    error_in,
    from_error_object,
    from_http,
    parse_retry_after_s,
    read_json,
    unreadable,
)

from .wire_reading import quick


def error(status: int, body: Any = b"", **headers: str) -> ProviderError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return from_http(status, data, {name.replace("_", "-"): v for name, v in headers.items()})


def openai(message: str, type: str | None = None, code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


# ---- by status -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "code", "retryable"),
    [
        (400, InvalidRequestError, "invalid_request", False),
        (401, AuthenticationError, "auth_invalid", False),
        (402, QuotaExceededError, "quota_exhausted", False),
        (403, PermissionDeniedError, "forbidden", False),
        (404, ProviderAPIError, "not_found", False),
        (405, InvalidRequestError, "invalid_request", False),
        (407, ProviderConnectionError, "proxy", False),
        (408, RequestTimeoutError, "timeout", True),
        (409, ProviderAPIError, "api_error", True),
        (410, ProviderAPIError, "api_error", False),
        (413, InvalidRequestError, "invalid_request", False),
        (418, InvalidRequestError, "invalid_request", False),
        (422, InvalidRequestError, "invalid_request", False),
        (425, ProviderAPIError, "api_error", True),
        (429, RateLimitError, "rate_limited", True),
        (451, PermissionDeniedError, "forbidden", False),
        (498, ProviderOverloadedError, "overloaded", True),
        (499, ProviderAPIError, "api_error", False),
        (500, ProviderAPIError, "api_error", True),
        (501, ProviderAPIError, "api_error", False),
        (502, ProviderAPIError, "api_error", True),
        (503, ProviderOverloadedError, "overloaded", True),
        (504, ProviderAPIError, "api_error", True),
        (511, InvalidResponseError, "captive_portal", False),
        (524, ProviderAPIError, "api_error", True),
        (529, ProviderOverloadedError, "overloaded", True),
        (302, ProviderAPIError, "redirected", False),
        (308, ProviderAPIError, "redirected", False),
    ],
)
def test_a_status_alone_decides(
    status: int, kind: type[ProviderError], code: str, retryable: bool
) -> None:
    found = error(status)
    assert (type(found), found.code, found.retryable) == (kind, code, retryable)
    assert found.http_status == status
    assert str(status) in found.message


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "API key"), (402, "billing"), (404, "base_url"), (405, "base_url"), (302, "base_url"),
     (403, "key may not"), (407, "proxy"), (511, "sign in"), (413, "smaller")],
)  # fmt: skip
def test_the_hint_says_what_to_do(status: int, words: str) -> None:
    assert words in str(error(status).hint)


def test_a_redirect_names_the_new_place_without_what_may_be_secret_in_it() -> None:
    found = error(301, b"moved", location="https://new.example/v1?token=abc#frag")
    assert "https://new.example/v1" in str(found)
    assert "abc" not in str(found)
    assert "frag" not in str(found)
    assert "key would go along" in str(found.hint)


# ---- by code, type and wording -------------------------------------------------------------------

TOO_LONG = [
    openai("This model's maximum context length is 8192 tokens. However, your messages resulted in "
           "9001 tokens.", "invalid_request_error", "context_length_exceeded"),
    openai("Your input exceeds the context window of this model. Please adjust your input."),
    {"type": "error", "error": {"type": "invalid_request_error",
                                "message": "prompt is too long: 215000 tokens > 200000 maximum"}},
    {"type": "error", "error": {"type": "invalid_request_error", "message": "input length and "
                                "`max_tokens` exceed context limit: 190000 + 20000 > 200000"}},
    openai("Please reduce the length of the messages or completion.", "invalid_request_error"),
    {"object": "error", "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for "
     "model with 32768 maximum context length", "type": "invalid_request_prompt", "code": "3051"},
    openai("This endpoint's maximum context length is 131072 tokens. However, you requested about "
           "200000 tokens.", code=400),
    {"object": "error", "message": "The decoder prompt (length 5000) is longer than the maximum "
     "model length of 4096.", "type": "BadRequestError", "code": 400},
    openai("'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum "
           "context length is 4096 tokens and your request has 10 input tokens",
           "BadRequestError", 400),
    {"error": {"code": 400, "message": "the request exceeds the available context size, try "
     "increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 1407, "n_ctx": 256}},
    {"error": "the input length exceeds the context length"},
    {"error": "Trying to keep the first 10136 tokens when context the overflows. However, the "
     "model is loaded with context length of only 7866 tokens, which is not enough."},
    {"error": "Cannot truncate prompt with n_keep (15028) >= n_ctx (7424)"},
    {"error": "The number of tokens to keep from the initial prompt is greater than the context "
     "length."},
    [{"error": {"code": 400, "message": "The input token count (1196265) exceeds the maximum "
      "number of tokens allowed (1048576).", "status": "INVALID_ARGUMENT"}}],
    {"code": "Some requested entity", "error": "This model's maximum prompt length is 131072 but "
     "the request contains 537812 tokens."},
    {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: "
     "5000 `inputs` tokens and 20 `max_new_tokens`", "error_type": "validation"},
    {"code": "InvalidParameter", "message": "Range of input length should be [1, 30720]"},
    {"error": {"code": "1261", "message": "Prompt exceeds max length"}},
    openai("Invalid request: Your request exceeded model token limit: 8192",
           "invalid_request_error"),
    {"message": "Input is too long for requested model."},
    {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081"},
    {"type": "error", "error": {"type": "bad_request_error",
                                "message": "invalid params, context window exceeds limit (2013)"}},
    {"error": {"message": "prompt token count of 128001 exceeds the limit of 128000",
               "code": "model_max_prompt_tokens_exceeded"}},
    openai("The prompt is too long: 200000, model maximum context length: 131072"),
    b"llama runner: prompt is too long",
]  # fmt: skip


@pytest.mark.parametrize("body", TOO_LONG)
def test_a_prompt_that_is_too_long_is_recognised_in_the_words_of_each_service(body: Any) -> None:
    found = error(400, body)
    assert type(found) is ContextWindowExceededError
    assert "shorten" in str(found.hint)


NO_MONEY = [
    (429, openai("You exceeded your current quota, please check your plan and billing details.",
                 "insufficient_quota", "insufficient_quota")),
    (429, openai("You exceeded your current quota, please check your plan and billing details.")),
    (429, {"error": {"message": "Your account is not active, please check your billing details",
                     "type": "billing_not_active"}}),
    (429, {"error": {"type": "exceeded_current_quota_error", "message": "x"}}),
    (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}),
    (402, {"error": {"code": 402, "message": "This request requires more credits"}}),
    (402, {"error": "You have exceeded your monthly included credits for Inference Providers."}),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit "
           "balance is too low to access the API."}}),
    (400, {"code": "Arrearage", "message": "Access denied, please make sure your account is ok."}),
    (403, {"code": "x", "error": "Your team has used all available credits or reached its monthly "
           "spending limit."}),
    (400, openai("x", "billing_error")),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), NO_MONEY)
def test_an_empty_account_is_no_rate_limit(status: int, body: Any) -> None:
    found = error(status, body)
    assert type(found) is QuotaExceededError
    assert not found.retryable


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, openai("x", "invalid_request_error", "model_not_found"), ModelNotFoundError),
        (404, openai("The model `x` does not exist or you do not have access to it.",
                     "invalid_request_error", "model_not_found"), ModelNotFoundError),
        (404, {"object": "error", "message": "The model `x` does not exist.",
               "type": "NotFoundError", "code": 404}, ModelNotFoundError),
        (404, {"error": 'model "x" not found, try pulling it first'}, ModelNotFoundError),
        (404, {"error": {"message": "models/x is not found for API version v1beta",
                         "status": "NOT_FOUND"}}, ModelNotFoundError),
        (404, {"type": "error", "error": {"type": "not_found_error", "message": "model: x"}},
         ModelNotFoundError),
        (404, openai("The API deployment for this resource does not exist.", None,
                     "DeploymentNotFound"), ModelNotFoundError),
        (404, openai("No endpoints found for x/y.", code=404), ModelNotFoundError),
        (400, openai("x is not a valid model ID", code=400), ModelNotFoundError),
        (400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model"},
         ModelNotFoundError),
        (400, openai("Model Not Exist", "invalid_request_error"), ModelNotFoundError),
        (400, openai("The model `x` has been decommissioned", code="model_decommissioned"),
         ModelNotFoundError),
        (400, {"detail": "Server is pinned to path@main"}, ModelNotFoundError),
        (404, {"error": {"message": "No models loaded. Please load a model in the developer page",
                         "type": "invalid_request_error"}}, ModelNotFoundError),
        (400, {"error": {"code": "1211", "message": "Unknown Model, please check the model code."}},
         ModelNotFoundError),
        (404, {"detail": "Not Found"}, ProviderAPIError),
        (404, b"404 page not found", ProviderAPIError),
        (404, openai("Invalid URL (POST /v1/x)", "invalid_request_error"), ProviderAPIError),
        (404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}},
         ProviderAPIError),
        (404, openai("No endpoints found that support tool use.", code=404), InvalidRequestError),
        (400, {"error": '"x" does not support tools'}, InvalidRequestError),
        (400, openai("Unsupported value: 'temperature' does not support 0.5 with this model.",
                     "invalid_request_error", "unsupported_value"), InvalidRequestError),
        (400, openai("The response was filtered due to the prompt triggering Azure OpenAI's "
                     "content management policy.", None, "content_filter"), ContentFilteredError),
        (403, openai("Your chosen model requires moderation and your input was flagged", code=403),
         ContentFilteredError),
        (400, {"code": "DataInspectionFailed", "message": "Input data may contain inappropriate "
               "content."}, ContentFilteredError),
        (400, openai("The request was rejected because it was considered high risk",
                     "content_filter"), ContentFilteredError),
        (401, openai("Incorrect API key provided", "invalid_request_error", "invalid_api_key"),
         AuthenticationError),
        (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
                          "status": "INVALID_ARGUMENT", "details": [
                              {"@type": "type.googleapis.com/google.rpc.ErrorInfo",
                               "reason": "API_KEY_INVALID"}]}}], AuthenticationError),
        (400, {"code": "Client specified an invalid argument",
               "error": "Incorrect API key provided."}, AuthenticationError),
        (403, {"error": {"message": "Invalid API key"}}, AuthenticationError),
        (403, openai("Country, region, or territory not supported", "request_forbidden",
                     "unsupported_country_region_territory"), PermissionDeniedError),
        (403, b"<html><title>Just a moment...</title>", PermissionDeniedError),
        (429, openai("Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): "
                     "Limit 30000, Used 29000, Requested 2000.", "tokens", "rate_limit_exceeded"),
         RateLimitError),
        (429, openai("Rate limit reached. Upgrade at https://console.example/settings/billing",
                     "tokens", "rate_limit_exceeded"), RateLimitError),
        (429, {"error": {"message": "The engine is currently overloaded, please try again later",
                         "type": "engine_overloaded_error"}}, ProviderOverloadedError),
        (429, {"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded"},
         RateLimitError),
        (503, {"error": "server busy, please try again. maximum pending requests exceeded"},
         ProviderOverloadedError),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
         ProviderOverloadedError),
        (500, openai("The server had an error; see our content policy", "server_error"),
         ProviderAPIError),
        (500, openai("unauthorized access to upstream, model not found", "server_error"),
         ProviderAPIError),
        (500, openai("this model's maximum context length is 4096 tokens", "InternalServerError"),
         ContextWindowExceededError),
        (500, {"error": "llama runner process has terminated"}, ProviderAPIError),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "top_k"],
                           "msg": "Extra inputs are not permitted"}]}, InvalidRequestError),
    ],
)  # fmt: skip
def test_code_and_wording_make_it_finer_where_the_status_allows(
    status: int, body: Any, kind: type[ProviderError]
) -> None:
    assert type(error(status, body)) is kind


@pytest.mark.parametrize("where", ["header", "body"])
def test_a_quota_that_refills_is_a_rate_limit(where: str) -> None:
    said: dict[str, Any] = {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "message": "You exceeded your current quota, please check your plan and billing details.",
    }
    if where == "header":
        found = error(429, {"error": said}, retry_after="38")
    else:
        info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"}
        found = error(429, [{"error": {**said, "details": [info]}}])
    assert type(found) is RateLimitError
    assert found.retry_after_s == 38


def test_a_request_above_the_limit_per_minute_is_not_worth_repeating() -> None:
    body = openai("Request too large for model `x` on tokens per minute (TPM): Limit 6000, "
                  "Requested 7152, please reduce your message size and try again.", "tokens",
                  "rate_limit_exceeded")  # fmt: skip
    for status in (413, 429):
        found = error(status, body)
        assert type(found) is RateLimitError
        assert not found.retryable
        assert "shorter" in str(found.hint)


@pytest.mark.parametrize(
    "body",
    [{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
     {"error": "Model x is currently loading", "estimated_time": 20.0}],
)  # fmt: skip
def test_a_server_that_is_loading_says_so(body: Any) -> None:
    found = error(503, body)
    assert (type(found), found.code, found.retryable) == (ProviderOverloadedError, "loading", True)
    assert found.retry_after_s == (20.0 if "estimated_time" in body else None)


def test_a_model_that_does_not_fit_into_memory_is_not_worth_repeating() -> None:
    found = error(500, {"error": "model requires more system memory (9.8 GiB) than is available"})
    assert not found.retryable
    assert "smaller model" in str(found.hint)


# ---- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "HTTP 500 without an explanation"),
        (b"upstream connect error", "HTTP 500: upstream connect error"),
        (b"<html><head><title>502 Bad\n Gateway</title></head><body>long</body></html>",
         "HTTP 500: 502 Bad Gateway"),
        (b"<html><body>no title</body></html>", "HTTP 500 without an explanation"),
        ({"error": {"message": "one"}}, "HTTP 500: one"),
        ({"error": "one"}, "HTTP 500: one"),
        ({"message": "one"}, "HTTP 500: one"),
        ({"detail": "one"}, "HTTP 500: one"),
        ({"errors": [{"message": "one"}, "two"]}, "HTTP 500: one: two"),
        ([{"error": {"message": "one"}}], "HTTP 500: one"),
        ({"detail": [{"loc": ["body", 0, "x"], "msg": "bad"}]}, "HTTP 500: body.0.x: bad"),
        ({"detail": [{"loc": "body", "msg": "bad"}]}, "HTTP 500: body: bad"),
        ({"error": {"message": "Provider returned error", "code": 500,
                    "metadata": {"raw": "the cause"}}},
         "HTTP 500: Provider returned error: the cause"),
        ({"error": {"message": "same", "error": {"message": "same"}}}, "HTTP 500: same"),
        ({"error": {}}, "HTTP 500 without an explanation"),
        ({"error": {"error": {"error": {"error": {"error": {"error": "deep"}}}}}},
         "HTTP 500 without an explanation"),
        ({"error": None}, "HTTP 500 without an explanation"),
        (b"null", "HTTP 500 without an explanation"),
        (b"7", "HTTP 500 without an explanation"),
        (b'"text"', "HTTP 500: text"),
        (b"\xff\xfe broken", "HTTP 500: \ufffd\ufffd broken"),
        (b'{"message": "a\xffb"}', "HTTP 500: a\ufffdb"),
        (b"[" * 100_000, None),
    ],
)  # fmt: skip
def test_the_message_says_what_the_server_said(body: Any, message: str | None) -> None:
    found = error(500, body)
    assert type(found) is ProviderAPIError
    assert len(found.message) <= 600
    assert message is None or found.message == message


@pytest.mark.parametrize(
    ("headers", "id"),
    [({"x_request_id": "req_1", "cf_ray": "ray"}, "req_1"), ({"Request_Id": "req_2"}, "req_2"),
     ({"CF_Ray": "ray"}, "ray"), ({"apim_request_id": "a"}, "a"), ({}, None)],
)  # fmt: skip
def test_the_providers_own_id_of_the_request_is_kept(headers: dict[str, str], id: str) -> None:
    assert error(500, b"", **headers).provider_request_id == id


def test_the_providers_own_id_may_stand_in_the_body() -> None:
    assert error(400, {"message": "x", "request_id": "abc"}).provider_request_id == "abc"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (openai("x", "invalid_request_error", "context_length_exceeded"),
         "context_length_exceeded"),
        (openai("x", "invalid_request_error"), "invalid_request_error"),
        (openai("x", "some_type", 400), "some_type"),
        (openai("x", None, 400), "400"),
        ({"code": "Arrearage"}, "Arrearage"),
        ({"error": {"code": True, "type": 1.5, "message": "x"}}, None),
        ({"message": "x"}, None),
    ],
)  # fmt: skip
def test_the_providers_own_code_is_kept(body: Any, code: str | None) -> None:
    assert error(400, body).provider_code == code


SECRET = "hidden-in-no-known-shape"


@pytest.mark.parametrize("status", [200, 301, 400, 401, 429, 500])
@pytest.mark.parametrize(
    "body",
    [openai(f"bad key {SECRET} or sk-abcdefghijklmnop", SECRET, SECRET),
     f"bad key {SECRET} or sk-abcdefghijklmnop".encode(),
     {"message": "x", "request_id": SECRET},
     f"<title>{SECRET}</title>".encode()],
)  # fmt: skip
def test_no_secret_gets_through(status: int, body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"x-request-id": SECRET, "location": f"https://{SECRET}.example/?k={SECRET}"}
    found = from_http(status, data, headers, secrets=[SECRET])
    everything = f"{found} {found.__dict__} {pickle.dumps(found)!r}"
    assert SECRET not in everything
    assert "abcdefghijklmnop" not in everything


@pytest.mark.parametrize("filler", ["x", "é", " x"])
def test_texts_are_bounded_and_secrets_at_the_edge_are_not_cut_in_half(filler: str) -> None:
    for before in range(470, 500):
        text = filler * before + f" {SECRET} " + "z" * 10_000
        found = from_error_object({"message": text, "code": text}, secrets=[SECRET])
        assert len(found.message) <= 500
        assert len(found.provider_code or "") <= 100
        assert SECRET[:8] not in found.message


# ---- error objects inside a successful answer ----------------------------------------------------


@pytest.mark.parametrize(
    ("given", "http_status", "kind", "status"),
    [
        ({"code": 429, "message": "x"}, None, RateLimitError, 429),
        ({"code": 429, "message": "x"}, 200, RateLimitError, 429),
        ({"code": "429", "message": "x"}, None, RateLimitError, 429),
        ({"error": {"code": 503, "message": "x"}}, None, ProviderOverloadedError, 503),
        ({"code": 429, "message": "x"}, 500, ProviderAPIError, 500),
        ({"code": 1234, "message": "x"}, None, ProviderAPIError, None),
        ({"type": "overloaded_error", "message": "Overloaded"}, 200, ProviderOverloadedError, None),
        ({"type": "authentication_error", "message": "x"}, None, AuthenticationError, None),
        ({"type": "permission_error", "message": "x"}, None, PermissionDeniedError, None),
        ({"type": "timeout_error", "message": "x"}, None, RequestTimeoutError, None),
        ({"type": "invalid_request_error", "message": "x"}, None, InvalidRequestError, None),
        ({"type": "BadRequestError", "message": "x"}, None, InvalidRequestError, None),
        ({"code": "rate-limited"}, None, RateLimitError, None),
        ("rate limit exceeded", None, RateLimitError, None),
        ("too many requests", None, RateLimitError, None),
        ("unauthorized", None, AuthenticationError, None),
        ("model 'x' not found", None, ModelNotFoundError, None),
        ([{"error": {"code": 401}}], None, AuthenticationError, 401),
        (None, None, ProviderAPIError, None),
        (7, None, ProviderAPIError, None),
        ({}, None, ProviderAPIError, None),
    ],
)
def test_an_error_object_decides_by_its_own_code(
    given: Any, http_status: int | None, kind: type[ProviderError], status: int | None
) -> None:
    found = from_error_object(given, http_status=http_status)
    assert (type(found), found.http_status) == (kind, status)


def test_an_outage_inside_an_answer_is_worth_repeating_and_an_unknown_error_is_not() -> None:
    for type_ in ("server_error", "internal_error", "InternalServerError", "api_error"):
        assert from_error_object({"type": type_, "message": "x"}).retryable
    assert not from_error_object({"type": "strange", "message": "x"}).retryable


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": "x"}, True),
        ([{"error": {"message": "x"}}], True),
        ({"object": "error", "message": "x"}, True),
        ({"message": "x", "code": 1}, True),
        ({"message": "x", "type": "t"}, True),
        ({"detail": "x"}, True),
        ({"errors": ["x"]}, True),
        ({"base_resp": {"status_code": 1, "status_msg": "x"}}, True),
        ({"base_resp": {"status_code": 0, "status_msg": ""}}, False),
        ({"error": None, "choices": []}, False),
        ({"message": {"content": "x"}, "type": "t"}, False),
        ({"message": "x"}, False),
        ({"type": "ping"}, False),
        ([{"message": "x", "code": 1}], False),
        ([], False),
        ({}, False),
        (None, False),
        ("error", False),
    ],
)
def test_what_looks_like_an_error(answer: Any, expected: bool) -> None:
    assert (error_in(answer) is not None) is expected


# ---- when to come back ---------------------------------------------------------------------------

NOON = "Fri, 20 Nov 2026 12:00:00 GMT"
NOON_S = 1795176000.0


@pytest.mark.parametrize(
    ("headers", "now_s", "waits_s"),
    [
        ({}, None, None),
        ({"retry-after": "7"}, None, 7.0),
        ({"Retry-After": " 7.5 "}, None, 7.5),
        ({"retry-after": "0"}, None, 0.0),
        ({"retry-after": "-3"}, None, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, None, 0.25),
        ({"retry-after-ms": "-1"}, None, 0.0),
        ({"retry-after-ms": "soon", "retry-after": "7"}, None, 7.0),
        ({"retry-after": NOON}, NOON_S - 30, 30.0),
        ({"retry-after": NOON}, NOON_S + 30, 0.0),
        ({"retry-after": NOON}, None, None),
        ({"retry-after": NOON, "date": "Fri, 20 Nov 2026 11:59:50 GMT"}, NOON_S - 9999, 10.0),
        ({"retry-after": NOON, "date": "yesterday"}, NOON_S - 30, 30.0),
        ({"retry-after": "Fri, 99 Foo 2026"}, NOON_S, None),
        ({"retry-after": "nan"}, None, None),
        ({"retry-after": "inf"}, None, None),
        ({"retry-after": "1e9"}, None, None),
        ({"retry-after": ""}, None, None),
        ({"retry-after": "٣"}, None, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, None, 360),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms",
          "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1.5s"}, None, 1.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3s"}, None, 3723),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6m0s"}, None, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, None, 12.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOON_S)}, NOON_S - 5, 5.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{NOON_S * 1000:.0f}"}, NOON_S - 5,
         5.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOON_S)}, None, None),
        ({"x-ratelimit-remaining": "9", "x-ratelimit-reset": "12"}, None, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s",
          "retry-after": "2"}, None, 2.0),
    ],
)  # fmt: skip
def test_how_long_to_wait(
    headers: dict[str, str], now_s: float | None, waits_s: float | None
) -> None:
    assert parse_retry_after_s(headers, now_s) == waits_s


@pytest.mark.parametrize(
    ("text", "waits_s"),
    [("Please try again in 6.5s.", 6.5), ("Try again in 250ms", 0.25), ("try again in 1m30s", 90.0),
     ("Please retry in 38.2s.", 38.2), ("try again in a while", None), ("try again", None)],
)  # fmt: skip
def test_how_long_to_wait_may_stand_in_the_text(text: str, waits_s: float | None) -> None:
    assert from_error_object({"code": 429, "message": text}).retry_after_s == waits_s
    assert error(429, openai(text), retry_after="3").retry_after_s == 3


@quick
@given(st.dictionaries(
    st.sampled_from(["retry-after", "Retry-After", "retry-after-ms", "date", "x-ratelimit-reset",
                     "x-ratelimit-remaining", "x-ratelimit-reset-tokens",
                     "x-ratelimit-remaining-tokens"]),
    st.one_of(st.text(max_size=30), st.integers().map(str), st.floats().map(str), st.just("0"))),
    st.one_of(st.none(), st.floats(0, 4e9)),
)  # fmt: skip
def test_no_header_makes_it_fail_or_wait_for_less_than_nothing(
    headers: dict[str, str], now_s: float | None
) -> None:
    waits_s = parse_retry_after_s(headers, now_s)
    assert waits_s is None or 0 <= waits_s < 1e16


# ---- anything ------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["error", "message", "code", "type", "detail", "errors", "metadata", "raw",
                         "status", "loc", "msg", "retryDelay", "estimated_time", "request_id"]),
        inner, max_size=5),
    max_leaves=15,
)  # fmt: skip


@quick
@given(st.integers(200, 599), json_values)
def test_any_body_becomes_an_error_of_ours(status: int, body: Any) -> None:
    found = error(status, body)
    assert isinstance(found, ProviderError)
    assert len(str(found)) < 1000
    assert isinstance(from_error_object(body), ProviderError)
    error_in(body)


@quick
@given(st.integers(200, 599), st.binary(max_size=200))
def test_any_bytes_become_an_error_of_ours(status: int, body: bytes) -> None:
    assert isinstance(error(status, body), ProviderError)


@pytest.mark.parametrize(
    "body",
    [b"model " * 40_000, b"<title" * 40_000, b"context " * 40_000, b"request too large " * 15_000,
     b'{"message": "' + b"try again in " * 20_000 + b'"}', b"no credits " * 25_000],
)  # fmt: skip
def test_a_body_made_to_be_slow_is_read_quickly(body: bytes) -> None:
    # The time limit of the test run is the judge: unbounded, these would take minutes.
    assert isinstance(error(400, body), ProviderError)


# ---- what cannot be read -------------------------------------------------------------------------


def test_what_cannot_be_read_is_quoted_shortly_and_without_keys() -> None:
    found = unreadable(b"sk-abcdefghijklmnop " + b"x" * 5000, "JSON", secrets=["xx"])
    assert isinstance(found, InvalidResponseError)
    assert len(str(found)) < 200
    assert "abcdefgh" not in str(found)
    assert "xx" not in str(found)


def test_reading_json() -> None:
    assert read_json(b'{"a": 1}', "x") == {"a": 1}
    for data, kind in (
        (b"", InvalidResponseError),
        (b"<html>", InvalidResponseError),
        (b"{", InvalidResponseError),
        (b'{"error": "model \'x\' not found"}', ModelNotFoundError),
    ):
        with pytest.raises(ProviderError) as caught:
            read_json(data, "x")
        assert type(caught.value) is kind
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


# ---- the wrong address, and networks that answer instead -----------------------------------------


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("http://h:1/models", "most servers expect it to end in /v1"),
        ("http://h:1/api/chat/completions", "most servers expect it to end in /v1"),
        ("http://h:1/v1/models?limit=9", "there is nothing at http://h:1/v1/models"),
        ("http://h:1/v1/v1/messages", "it must not end in /v1 here"),
        ("http://h:1/v1/api/tags", "it must not end in /v1 here"),
        ("http://h:1/api/tags", "there is nothing at http://h:1/api/tags"),
        ("", "there is nothing at that address"),
    ],
)
def test_a_path_that_is_not_there_is_named_with_what_may_be_wrong_about_it(url, advice) -> None:
    hint = from_http(404, b"", {}, url=url).hint
    assert str(hint).endswith(advice)
    assert str(hint).startswith("check base_url: ")


def test_a_password_in_an_address_is_not_shown() -> None:
    hint = from_http(404, b"", {}, url="http://me:secret@h:1/models").hint
    assert "secret" not in str(hint)


@pytest.mark.parametrize("status", [302, 303, 307])
def test_who_is_sent_to_another_server_for_the_moment_has_met_a_captive_portal(status) -> None:
    where = {"location": "http://login.hotel.example/start?token=abc"}
    found = from_http(status, b"", where, url="https://api.example/v1/models")
    assert (type(found), found.code) == (InvalidResponseError, "captive_portal")
    assert "http://login.hotel.example/start" in str(found)
    assert "abc" not in str(found)
    assert "sign in" in str(found.hint)


@pytest.mark.parametrize(
    ("status", "location", "url"),
    [
        (301, "https://new.example/v1", "https://old.example/v1/models"),
        (308, "https://new.example/v1", "https://old.example/v1/models"),
        (302, "https://h.example/v1/models", "http://h.example/v1/models"),
        (302, "/elsewhere", "http://h.example/v1/models"),
        (302, "http://[broken", "http://h.example/v1/models"),
        (302, "http://new.example", ""),
    ],
)
def test_other_redirects_mean_that_the_address_is_another(status, location, url) -> None:
    found = from_http(status, b"", {"location": location}, url=url)
    assert (type(found), found.code) == (ProviderAPIError, "redirected")
    assert "base_url" in str(found.hint)
