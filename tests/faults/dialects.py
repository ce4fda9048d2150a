"""The dialects that the faults are tried with: how each answers when nothing is wrong.

An answer consists of three parts, so that a script can stop between them: the beginning up to the
first piece of text, a second piece, and the proper end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_manager import (
    AnthropicProvider,
    OllamaProvider,
    OpenAICompatibleProvider,
    OpenAIProvider,
)
from llm_manager.provider import BaseLLMProvider

from ..wire import anthropic_events as anthropic
from ..wire import response_events as responses

FIRST, SECOND = "Hello", " world"
MODEL = "model-1"

# What services say with a status, and the words for it of those that have some.
_MESSAGES = {
    401: ("Incorrect API key provided", "invalid_api_key", "authentication_error"),
    403: ("This key may not do that", "permission_denied", "permission_error"),
    404: ("There is no such path", "not_found", "not_found_error"),
    407: ("Proxy Authentication Required", "proxy", "proxy"),
    408: ("The request took too long to arrive", "request_timeout", "timeout_error"),
    409: ("The state is in conflict with that", "conflict", "conflict_error"),
    413: ("The body is larger than can be taken", "request_too_large", "request_too_large"),
    422: ("A field cannot be processed", "unprocessable_entity", "invalid_request_error"),
    429: ("Too many requests", "rate_limit_exceeded", "rate_limit_error"),
    500: ("Something went wrong", "server_error", "api_error"),
    502: ("No answer from behind the gateway", "bad_gateway", "api_error"),
    503: ("The service is unavailable", "service_unavailable", "api_error"),
    529: ("Overloaded", "overloaded", "overloaded_error"),
}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one kind of server answers.

    Attributes:
        name: for the ids of the tests.
        title: for people.
        new: makes a provider that speaks it.
        below: what its address ends in.
        questions: the paths below that address that are no requests for an answer, each with what
            it is answered with.
        media: content type of a stream.
        begins, goes_on, ends: an answer in three parts.
        comment: what keeps a stream warm and says nothing.
        broken: an event that cannot be read.
        line: how a line of a stream begins.
        says: the body of an answer that says no, from message, code and type.
        fails: the event of a stream that says no, from the same.
    """

    name: str
    title: str
    new: Callable[..., BaseLLMProvider]
    below: str
    questions: Mapping[str, Any]
    media: str
    begins: bytes
    goes_on: bytes
    ends: bytes
    comment: bytes
    broken: bytes
    line: bytes
    says: Callable[[str, str, str], Any]
    fails: Callable[[str, str, str], bytes]

    def error_body(self, status: int) -> bytes:
        """What the server says together with ``status``."""
        return json.dumps(self.says(*_MESSAGES[status])).encode()

    def error_event(self, status: int) -> bytes:
        """What the server says inside a stream that began with 200, where ``status`` was due."""
        return self.fails(*_MESSAGES[status])


def _sse(*events: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % (e if isinstance(e, bytes) else _json(e)) for e in events)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _chunk(text: str | None = None, finish: str | None = None) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": MODEL, "choices": [choice]}


def _openai_error(message: str, code: str, _: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code}}


def _anthropic_error(message: str, _: str, kind: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _response_error(message: str, code: str, _: str) -> bytes:
    failed = responses.response("failed", error={"code": code, "message": message})
    return responses.one({"type": "response.failed", "response": failed})


def _ollama_line(text: str, **more: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    return _json({"model": MODEL, "message": message, "done": False, **more}) + b"\n"


_OPENAI_MODELS = {"/models": {"object": "list", "data": [{"id": MODEL, "object": "model"}]}}
_OPENAI_CHAT: dict[str, Any] = {
    "below": "/v1",
    "questions": _OPENAI_MODELS,
    "media": "text/event-stream",
    "begins": _sse(_chunk(""), _chunk(FIRST)),
    "goes_on": _sse(_chunk(SECOND)),
    "ends": _sse(_chunk(finish="stop"), b"[DONE]"),
    "comment": b": keep-alive\n\n",
    "broken": b"data: {broken\n\n",
    "line": b"data: ",
    "says": _openai_error,
    "fails": lambda *words: _sse(_openai_error(*words)),
}
_TEXT_ITEM = responses.text_item(FIRST, SECOND)
_RESPONSE = [*map(responses.one, responses.answer(_TEXT_ITEM))]

DIALECTS = (
    Dialect(
        name="http",
        title="OpenAI's chat over plain HTTP",
        new=OpenAICompatibleProvider,
        **_OPENAI_CHAT,
    ),
    Dialect(
        name="openai",
        title="OpenAI's chat through its SDK",
        new=lambda **settings: OpenAIProvider(api="chat", **settings),
        **_OPENAI_CHAT,
    ),
    Dialect(
        name="responses",
        title="OpenAI's Responses through its SDK",
        new=lambda **settings: OpenAIProvider(api="responses", **settings),
        **{
            **_OPENAI_CHAT,
            "begins": b"".join(_RESPONSE[:5]),
            "goes_on": _RESPONSE[5],
            "ends": b"".join(_RESPONSE[6:]),
            "fails": _response_error,
        },
    ),
    Dialect(
        name="anthropic",
        title="Anthropic's Messages through its SDK",
        new=AnthropicProvider,
        below="",
        questions={
            "/v1/models": {"data": [{"id": MODEL, "type": "model"}], "has_more": False},
        },
        media="text/event-stream",
        begins=anthropic.rendered(
            [anthropic.start(), anthropic.begin(0, "text", text=""), anthropic.say(FIRST)]
        ),
        goes_on=anthropic.one(anthropic.say(SECOND)),
        ends=anthropic.rendered([anthropic.end(), anthropic.finish(), anthropic.STOP]),
        comment=anthropic.one(anthropic.PING),
        broken=b"event: content_block_delta\ndata: {broken\n\n",
        line=b"data: ",
        says=_anthropic_error,
        fails=lambda *words: anthropic.one(_anthropic_error(*words)),
    ),
    Dialect(
        name="ollama",
        title="Ollama",
        new=OllamaProvider,
        below="",
        questions={
            "/api/tags": {"models": [{"name": MODEL, "model": MODEL, "size": 1}]},
            "/api/ps": {"models": []},
        },
        media="application/x-ndjson",
        begins=_ollama_line(FIRST),
        goes_on=_ollama_line(SECOND),
        ends=_ollama_line("", done=True, done_reason="stop", prompt_eval_count=1, eval_count=2),
        comment=b"\n",
        broken=b"{broken\n",
        line=b"",
        says=lambda message, *_: {"error": message},
        fails=lambda message, *_: _json({"error": message}) + b"\n",
    ),
)
