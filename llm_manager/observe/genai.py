"""The semantic conventions for generative AI, as data: names, attributes, metrics.

Source: OpenTelemetry, "Semantic conventions for generative AI" (spans, metrics), version 1.42,
status "development".  The names stand here as text, because the package that has them as constants
renames them from release to release.

What this file must not do: know a tracing library, or look at what was said (`genai_content`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from ..events import RequestFinished
from ..messages import LLMRequest, Usage
from .trace_provider import Attribute, Attributes, Metric

Record = Callable[[Metric, float, Attributes], None]

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_USAGE = Metric(
    "gen_ai.client.token.usage",
    "{token}",
    "Number of input and output tokens used.",
    tuple(float(4**power) for power in range(14)),
)
DURATION = Metric("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _SECONDS)
TIME_TO_FIRST_CHUNK = Metric(
    "gen_ai.client.operation.time_to_first_chunk", "s", "Time to the first chunk.", _SECONDS
)
TIME_PER_OUTPUT_CHUNK = Metric(
    "gen_ai.client.operation.time_per_output_chunk",
    "s",
    "Time from one chunk to the next.",
    _SECONDS,
)

OPERATION_NAMES = {
    "chat": "chat",
    "completion": "chat",  # it is sent as a conversation
    "fim": "text_completion",
    "embed": "embeddings",
}

PROVIDER_NAMES = {
    "codestral": "mistral_ai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "xai": "x_ai",
}
"""What the conventions call a kind of provider, where that is not our name of it."""

_PROVIDERS_BY_HOST = (
    (".openai.azure.com", "azure.ai.openai"),
    (".services.ai.azure.com", "azure.ai.inference"),
    (".models.ai.azure.com", "azure.ai.inference"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    (".ml.cloud.ibm.com", "ibm.watsonx.ai"),
)


class Call:
    """What all spans and measurements of the same kind of request have in common.

    Attributes:
        span_name: e.g. ``"chat gpt-5"``.
        attributes: those that samplers may look at; shared, never changed.
    """

    __slots__ = ("attributes", "span_name")

    def __init__(self, kind: str, operation: str, model: str, base_url: str | None) -> None:
        name = OPERATION_NAMES.get(operation, operation)
        host, port = _server(base_url)
        self.span_name = f"{name} {model}"
        self.attributes: dict[str, Attribute] = {
            "gen_ai.operation.name": name,
            "gen_ai.provider.name": _provider_name(kind, host),
            "gen_ai.request.model": model,
        }
        if host:
            self.attributes["server.address"] = host
        if port is not None:
            self.attributes["server.port"] = port


@lru_cache(maxsize=1024)
def call_of(kind: str, operation: str, model: str, base_url: str | None) -> Call:
    """The `Call` of all requests with these facts.

    Args:
        kind: kind of the provider.
        operation: as in `LLMRequest`.
        model: the model that was asked for.
        base_url: where the service is, or None if it has no address.
    """
    return Call(kind, operation, model, base_url)


def add_request(attributes: dict[str, Attribute], request: LLMRequest) -> None:
    """Add what a request says besides what its `Call` does."""
    options = request.options
    # One by one: a loop over their names takes several times as long.
    if options.temperature is not None:
        attributes["gen_ai.request.temperature"] = options.temperature
    if options.max_tokens is not None:
        attributes["gen_ai.request.max_tokens"] = options.max_tokens
    if options.top_p is not None:
        attributes["gen_ai.request.top_p"] = options.top_p
    if options.presence_penalty is not None:
        attributes["gen_ai.request.presence_penalty"] = options.presence_penalty
    if options.frequency_penalty is not None:
        attributes["gen_ai.request.frequency_penalty"] = options.frequency_penalty
    if options.seed is not None:
        attributes["gen_ai.request.seed"] = options.seed
    if options.stop is not None:
        attributes["gen_ai.request.stop_sequences"] = options.stop
    if request.operation == "embed":
        return
    if request.stream:
        attributes["gen_ai.request.stream"] = True
    wanted = options.response_format
    if wanted is not None:
        attributes["gen_ai.output.type"] = "text" if wanted == "text" else "json"


def response_attributes(event: RequestFinished) -> dict[str, Attribute]:
    """What is known when a request has ended.

    The tokens of a composite are left out, because they stand in the spans of its parts; so are
    those of an answer that was kept from earlier, because none were used.
    """
    attributes: dict[str, Attribute] = {
        "llm_manager.request_id": event.request_id,
        "llm_manager.provider_id": event.provider_id,
        "llm_manager.outcome": event.outcome,
        "llm_manager.attempts": event.attempts,
    }
    if event.conversation_id is not None:
        attributes["gen_ai.conversation.id"] = event.conversation_id
    if event.response_id is not None:
        attributes["gen_ai.response.id"] = event.response_id
    if event.first_token_s is not None:
        attributes["gen_ai.response.model"] = event.response_model
        if event.operation != "embed":
            attributes["gen_ai.response.time_to_first_chunk"] = event.first_token_s
    if event.finish_reason is not None:
        attributes["gen_ai.response.finish_reasons"] = (event.finish_reason,)
    if event.cached:
        attributes["llm_manager.cached"] = True
    if event.composite:
        attributes["llm_manager.composite"] = True
    if event.answered_by not in ("", event.provider_id):
        attributes["llm_manager.answered_by"] = event.answered_by
    if event.error and event.outcome == "error":
        attributes["error.type"] = event.error.code
        if event.error.http_status is not None:
            attributes["http.response.status_code"] = event.error.http_status
    if event.usage is not None and not (event.cached or event.composite):
        _add_usage(attributes, event.usage)
    return attributes


def _add_usage(attributes: dict[str, Attribute], usage: Usage) -> None:
    attributes["gen_ai.usage.input_tokens"] = usage.prompt_tokens
    attributes["gen_ai.usage.output_tokens"] = usage.completion_tokens
    if usage.cached_tokens:
        attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.cache_write_tokens:
        attributes["gen_ai.usage.cache_creation.input_tokens"] = usage.cache_write_tokens
    if usage.reasoning_tokens:
        attributes["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    if usage.estimated:
        attributes["llm_manager.usage.estimated"] = True


def measure(record: Record, call: Call, event: RequestFinished) -> None:
    """Record a request that has ended; a composite is not, because its parts are.

    Tokens that we have only estimated are not reported, as the conventions demand, and those of
    an answer that was kept from earlier are not used.
    """
    if event.composite:
        return
    first_s, usage = event.first_token_s, event.usage
    error_type = event.error.code if event.error and event.outcome == "error" else None
    duration, chunks, input_tokens, output_tokens = measured(
        call, None if first_s is None else event.response_model, error_type
    )
    record(DURATION, event.duration_s, duration)
    generates = event.operation != "embed"
    if first_s is not None and generates:
        record(TIME_TO_FIRST_CHUNK, first_s, chunks)
    if usage is not None and not (usage.estimated or event.cached):
        record(TOKEN_USAGE, usage.prompt_tokens, input_tokens)
        if generates:
            record(TOKEN_USAGE, usage.completion_tokens, output_tokens)


class Measured(NamedTuple):
    """Attributes of what is measured, by metric; shared by all requests that have the same."""

    duration: Attributes
    chunks: Attributes
    input_tokens: Attributes
    output_tokens: Attributes


@lru_cache(maxsize=1024)
def measured(
    call: Call, response_model: str | None = None, error_type: str | None = None
) -> Measured:
    known = dict(call.attributes)
    if response_model:
        known["gen_ai.response.model"] = response_model
    return Measured(
        duration={**known, "error.type": error_type} if error_type else known,
        chunks=known,
        input_tokens={**known, "gen_ai.token.type": "input"},
        output_tokens={**known, "gen_ai.token.type": "output"},
    )


def _provider_name(kind: str, host: str) -> str:
    """Whose service it is: the address tells more than the library that speaks to it."""
    for ending, name in _PROVIDERS_BY_HOST:
        if host.endswith(ending):
            return name
    if host.startswith("bedrock") and host.endswith(".amazonaws.com"):
        return "aws.bedrock"
    return PROVIDER_NAMES.get(kind, kind)


def _server(base_url: str | None) -> tuple[str, int | None]:
    """Host and port of an address, and nothing else that may stand in it."""
    if base_url is None:
        return "", None
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme)
