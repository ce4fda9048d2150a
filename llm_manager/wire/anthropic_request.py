"""Writes requests to Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidParameterError, UnsupportedFeatureError
from ..messages import LLMRequest, LLMRequestOptions, ReasoningEffort
from .anthropic_content import cache_control, conversation
from .anthropic_models import ModelTraits
from .anthropic_schema import closed_schema
from .failures import read_json, unreadable
from .loose import encoded, field, whole_number

DEFAULT_MAX_TOKENS = 32_000
"""Sent for a model whose own limit is not known; every model since version 4 accepts it."""

_SAMPLING = ("temperature", "top_p")
_REFUSED = ("seed", "presence_penalty", "frequency_penalty")
# In tokens, for models that are told how much to think.
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "max": 32_768}
_SMALLEST_BUDGET_TOKENS = 1024
_COUNTED = (
    "model", "messages", "system", "tools", "tool_choice", "thinking", "output_config",
    "cache_control",
)  # fmt: skip


def encode_request(request: LLMRequest, model: ModelTraits) -> bytes:
    """The body to send to ``/v1/messages``.

    Raises:
        UnsupportedFeatureError: the service cannot do it.
        InvalidParameterError: a value is out of its range, or is not JSON.
    """
    body = _body(request, model)
    for name in left_out(request, model):
        del body[name]
    return encoded({**body, "stream": request.stream, **request.options.extra})


def encode_count(request: LLMRequest, model: ModelTraits) -> bytes:
    """The body to send to ``/v1/messages/count_tokens``.

    Raises:
        UnsupportedFeatureError, InvalidParameterError: as for `encode_request`.
    """
    body = _body(request, model)
    return encoded({name: body[name] for name in _COUNTED if name in body})


def decode_count(data: bytes) -> int:
    """The number of tokens in the answer to a request for counting.

    Raises:
        InvalidResponseError: there is none.
        ProviderError: it is an error object.
    """
    tokens = whole_number(field(read_json(data, "a count of tokens"), "input_tokens"))
    if tokens is None:
        raise unreadable(data, "a count of tokens", why="input_tokens is missing")
    return tokens


def left_out(request: LLMRequest, model: ModelTraits) -> tuple[str, ...]:
    """The given sampling parameters that are not sent, because the service refuses them.

    It does so while a model reasons, and for newer models always.
    """
    options = request.options
    thinks = options.reasoning_effort not in (None, "none")
    if model.takes_sampling and not thinks:
        return ()
    return tuple(name for name in _SAMPLING if getattr(options, name) is not None)


def reasoning_fields(
    effort: ReasoningEffort, max_tokens: int, model: ModelTraits
) -> dict[str, dict[str, Any]]:
    """The fields ``thinking`` and ``output_config`` for a reasoning effort.

    A model that takes ``adaptive`` thinking gets that and the effort, ``minimal`` being sent as
    ``low``, and ``max`` as ``high`` where it does not know the word.  Otherwise it gets a budget:
    at least 1,024 tokens, and at most half of ``max_tokens``, of which it is a part.  With effort
    ``none``, thinking is switched off where it would be on.

    Source: the service's pages "Thinking" and "Effort"; the budgets are ours.

    Raises:
        UnsupportedFeatureError: the model does not reason, or cannot be kept from it.
        InvalidParameterError: ``max_tokens`` leaves no room for reasoning.
    """
    if effort == "none":
        return _without_thinking(model)
    if "adaptive" in model.thinking:
        # Newer models hide what they think unless they are asked to sum it up.
        fields = {"thinking": {"type": "adaptive", "display": "summarized"}}
        word = {"minimal": "low", "max": "max" if "max" in model.efforts else "high"}
        level = word.get(effort, effort)
        return {**fields, "output_config": {"effort": level}} if model.efforts else fields
    if "enabled" not in model.thinking:
        raise UnsupportedFeatureError(
            "this model does not reason", hint="leave reasoning_effort out"
        )
    if max_tokens < 2 * _SMALLEST_BUDGET_TOKENS:
        raise InvalidParameterError(
            f"reasoning needs max_tokens of at least {2 * _SMALLEST_BUDGET_TOKENS}, "
            f"got {max_tokens}",
            hint="raise max_tokens or leave reasoning_effort out",
        )
    budget_tokens = min(_BUDGETS[effort], max_tokens // 2)
    return {"thinking": {"type": "enabled", "budget_tokens": budget_tokens}}


def _without_thinking(model: ModelTraits) -> dict[str, dict[str, Any]]:
    if not model.thinks_unasked:
        return {}
    for word in ("disabled", "between_tools"):
        if word in model.thinking:
            return {"thinking": {"type": word}}
    raise UnsupportedFeatureError(
        "this model always reasons", hint="use reasoning_effort 'low' for the least of it"
    )


def _body(request: LLMRequest, model: ModelTraits) -> dict[str, Any]:
    options = request.options
    _check(options)
    system, turns = conversation(request.messages)
    max_tokens = options.max_tokens or model.max_output_tokens or DEFAULT_MAX_TOKENS
    body: dict[str, Any] = {"model": request.model, "max_tokens": max_tokens, "messages": turns}
    if system:
        body["system"] = system
    body |= _tools(options)
    if options.reasoning_effort is not None:
        body |= reasoning_fields(options.reasoning_effort, max_tokens, model)
    if isinstance(options.response_format, dict):
        form = {"type": "json_schema", "schema": closed_schema(options.response_format)}
        body["output_config"] = {**body.get("output_config", {}), "format": form}
    if options.prompt_cache is not None:
        body["cache_control"] = cache_control(options.prompt_cache)
    sampling = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "stop_sequences": options.stop or None,
    }
    return body | {name: value for name, value in sampling.items() if value is not None}


def _check(options: LLMRequestOptions) -> None:
    for name in _REFUSED:
        if getattr(options, name) is not None:
            raise UnsupportedFeatureError(f"this service takes no {name}", hint=f"leave {name} out")
    if options.response_format == "json_object":
        raise UnsupportedFeatureError(
            "this service has no JSON mode", hint="give a JSON Schema or a type instead"
        )
    if options.temperature is not None and options.temperature > 1:
        raise InvalidParameterError(
            f"temperature must be between 0 and 1 for this service, got {options.temperature!r}"
        )


def _tools(options: LLMRequestOptions) -> dict[str, Any]:
    if not options.tools:
        return {}
    tools = []
    for tool in options.tools:
        entry: dict[str, Any] = {"name": tool.name}
        if tool.description:
            entry["description"] = tool.description
        tools.append({**entry, "input_schema": {"type": "object", **tool.parameters}})
    choice = _tool_choice(options)
    return {"tools": tools, "tool_choice": choice} if choice else {"tools": tools}


def _tool_choice(options: LLMRequestOptions) -> dict[str, Any] | None:
    given, one_at_a_time = options.tool_choice, options.parallel_tool_calls is False
    if given is None and not one_at_a_time:
        return None
    if given == "none":
        return {"type": "none"}
    words: dict[str | None, dict[str, Any]] = {
        None: {"type": "auto"},
        "auto": {"type": "auto"},
        "required": {"type": "any"},
    }
    choice = words.get(given) or {"type": "tool", "name": given}
    return {**choice, "disable_parallel_tool_use": True} if one_at_a_time else choice
