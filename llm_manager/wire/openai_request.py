"""Writes requests in the chat completions dialect of OpenAI, and in its variations."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import InvalidParameterError, UnsupportedFeatureError
from ..messages import (
    Data,
    FilePart,
    ImagePart,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    OpaquePart,
    Part,
    TextPart,
    ToolCall,
)
from .dialect_habits import alphanumeric_9, nearest_effort, with_one_system_message
from .loose import encoded
from .openai_names import accepted_efforts, refused_options, without
from .openai_strict import strict_form

FimStyle: TypeAlias = Literal["mistral", "completions", "llamacpp"]
"""How a server fills in the middle.  ``mistral``: ``/fim/completions``.  ``completions``: the older
completions of OpenAI, with a ``suffix``.  ``llamacpp``: ``/infill``, beside ``/v1``."""


class ChatDialect(Data, frozen=True, kw_only=True):
    """How one server's dialect differs; the defaults suit most.

    Attributes:
        max_tokens_name: name of the field for `LLMRequestOptions.max_tokens`.
        seed_name: name of the field for ``seed``, or None if the server refuses it.
        stream_usage: whether to ask for token counts in a stream.  False for servers that refuse
            ``stream_options``; most of those send the counts unasked.
        stream_with_response_format: False if the server cannot stream JSON answers; it is then
            asked for the whole answer, which arrives in one piece.
        reasoning_input: how a reasoning effort is sent: ``reasoning_effort``, ``openrouter``
            (``reasoning: {effort}``), ``thinking`` (``thinking: {type}``: on or off, no degrees),
            ``enable_thinking`` (the same as a boolean), or None: it cannot be sent.
        max_effort: the server's word for the effort ``max``.
        efforts: the words it takes as ``reasoning_effort``, the weakest first; an effort between
            two of them becomes the higher one.  Empty: all.
        reasoning_sent_back: name of the message field in which the reasoning of an assistant
            message with tool calls goes back to the server, or ``think_tags``: in front of its
            text, as it came; None leaves reasoning out.
        reasoning_sent_back_to: only to models with one of these in their name; empty: to all.
        think_tags: whether reasoning arrives as ``<think>...</think>`` at the beginning of the
            text, and is to be taken out of it.
        stop_limit: how many stop texts the server takes; None: any number.
        temperature_range: lowest and highest temperature it takes.
        json_object: whether it takes the response format ``json_object``.
        json_schema: whether it takes a JSON Schema as response format.
        strict_tools: whether the arguments of tools can be held to their schema (``strict``), for
            those whose schema is strict.
        openai_models: whether its models are OpenAI's own; their names then tell which efforts
            they take, and what has to be left out while they reason.
        forced_tool_choice: whether the model can be made to call a tool.
        forced_tool_choice_while_reasoning: whether it can while it reasons.
        parallel_tool_calls: whether it takes the option of that name.
        tool_call_ids: which ids of tool calls the server accepts; others are replaced.
        one_system_message: whether there may be one system message only, at the beginning; the
            text of the others is moved into it.
        files: whether messages may carry files.
        file_urls: whether the server fetches files by URL.
        requires_finish: whether a stream that ends with neither a finish reason nor ``[DONE]`` is
            broken.  False for gateways that send neither.
    """

    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    seed_name: str | None = "seed"
    stream_usage: bool = True
    stream_with_response_format: bool = True
    reasoning_input: (
        Literal["reasoning_effort", "openrouter", "thinking", "enable_thinking"] | None
    ) = "reasoning_effort"
    max_effort: str = "high"
    efforts: tuple[str, ...] = ()
    reasoning_sent_back: Literal["reasoning_content", "reasoning", "think_tags"] | None = None
    reasoning_sent_back_to: tuple[str, ...] = ()
    think_tags: bool = False
    stop_limit: int | None = None
    temperature_range: tuple[float, float] = (0.0, 2.0)
    json_object: bool = True
    json_schema: bool = True
    strict_tools: bool = False
    openai_models: bool = False
    forced_tool_choice: bool = True
    forced_tool_choice_while_reasoning: bool = True
    parallel_tool_calls: bool = True
    tool_call_ids: Literal["any", "alphanumeric_9"] = "any"
    one_system_message: bool = False
    files: bool = True
    file_urls: bool = False
    requires_finish: bool = True


def encode_request(request: LLMRequest, dialect: ChatDialect) -> bytes:
    """The body to send to ``/chat/completions``.

    Raises:
        UnsupportedFeatureError: the dialect cannot express the request.
        InvalidParameterError: a value is out of the server's range, or is not JSON.
    """
    options, dialect = _fitted(request, dialect)
    messages: Sequence[LLMMessage] = request.messages
    models = dialect.reasoning_sent_back_to
    if models and not any(part in request.model for part in models):
        dialect = msgspec.structs.replace(dialect, reasoning_sent_back=None)
    if dialect.one_system_message:
        messages = with_one_system_message(messages)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message, dialect) for message in messages],
    }
    body |= sampling(options, dialect)
    body |= _tools(options, dialect)
    body |= _response_format(options, dialect)
    body |= _reasoning(options, dialect)
    body["stream"] = request.stream and (
        dialect.stream_with_response_format or "response_format" not in body
    )
    if body["stream"] and dialect.stream_usage:
        body["stream_options"] = {"include_usage": True}
    return encoded(body | options.extra)


def left_out(request: LLMRequest, dialect: ChatDialect) -> tuple[str, ...]:
    """The names of options that are given and not sent, because the model would refuse them."""
    return refused_options(request.model, request.options) if dialect.openai_models else ()


def _fitted(request: LLMRequest, dialect: ChatDialect) -> tuple[LLMRequestOptions, ChatDialect]:
    """What can be sent of the options, and the dialect of the very model."""
    if not dialect.openai_models:
        return request.options, dialect
    options = without(request.options, left_out(request, dialect))
    efforts = accepted_efforts(request.model)
    if efforts:
        dialect = msgspec.structs.replace(dialect, efforts=efforts, max_effort=efforts[-1])
    return options, dialect


def _message(message: LLMMessage, dialect: ChatDialect) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role, "content": _content(message, dialect)}
    if message.name is not None:
        out["name"] = message.name
    if message.tool_call_id is not None:
        out["tool_call_id"] = _id(message.tool_call_id, dialect)
    if message.tool_calls:
        # Some servers refuse an empty text next to calls; all accept null.
        out["content"] = out["content"] or None
        out["tool_calls"] = [_call(call, dialect) for call in message.tool_calls]
        if dialect.reasoning_sent_back == "think_tags" and message.reasoning:
            text = f"<think>\n{message.reasoning}\n</think>\n\n"
            out["content"] = text + (out["content"] or "")
        elif dialect.reasoning_sent_back and message.reasoning:
            out[dialect.reasoning_sent_back] = message.reasoning
    return out


def _call(call: ToolCall, dialect: ChatDialect) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments_json or "{}"}
    return {"id": _id(call.id, dialect), "type": "function", "function": function}


def _id(id: str, dialect: ChatDialect) -> str:
    return alphanumeric_9(id) if dialect.tool_call_ids == "alphanumeric_9" else id


def _content(message: LLMMessage, dialect: ChatDialect) -> str | list[dict[str, Any]]:
    # Text stays text wherever it can: many servers understand parts only where an image is.
    given = () if isinstance(message.content, str) else message.content
    # What only another dialect understands is left out.
    parts = [part for part in given if not isinstance(part, OpaquePart)]
    if all(isinstance(part, TextPart) for part in parts):
        return message.text
    if message.role != "user":
        raise UnsupportedFeatureError(
            f"a message with role {message.role!r} can only carry text on this wire",
            hint="put images and files into a message with role 'user'",
        )
    return [encode_part(part, dialect) for part in parts]


def encode_part(part: Part, dialect: ChatDialect) -> dict[str, Any]:
    """One part of a message as the server wants it.

    Raises:
        UnsupportedFeatureError: it does not take it.
    """
    if isinstance(part, OpaquePart):
        raise UnsupportedFeatureError(f"a part of origin {part.origin!r} means nothing here")
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        image = {"url": part.url or data_url(part)}
        if part.detail is not None:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    if not dialect.files:
        raise UnsupportedFeatureError(
            "this server takes no files", hint="send the text of the file"
        )
    url = part.url or data_url(part)
    if not (dialect.file_urls or url.startswith("data:")):
        raise UnsupportedFeatureError(
            "this server does not fetch files by URL", hint="read the file and give it as data"
        )
    return {"type": "file", "file": {"filename": part.filename or "file", "file_data": url}}


def data_url(part: ImagePart | FilePart) -> str:
    """The bytes of ``part`` as a URL."""
    return f"data:{part.media_type};base64,{b64encode(part.data or b'').decode()}"


def sampling(options: LLMRequestOptions, dialect: ChatDialect) -> dict[str, Any]:
    """The fields that say how to pick tokens and when to stop.

    Raises:
        UnsupportedFeatureError: the server has no such field.
        InvalidParameterError: a value is out of the server's range.
    """
    _check_limits(options, dialect)
    given = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        dialect.max_tokens_name: options.max_tokens,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "stop": options.stop or None,
    }
    if dialect.seed_name is not None:
        given[dialect.seed_name] = options.seed
    elif options.seed is not None:
        raise UnsupportedFeatureError("this server takes no seed", hint="leave seed out")
    return {name: value for name, value in given.items() if value is not None}


def _check_limits(options: LLMRequestOptions, dialect: ChatDialect) -> None:
    low, high = dialect.temperature_range
    if options.temperature is not None and not low <= options.temperature <= high:
        raise InvalidParameterError(
            f"temperature must be between {low:g} and {high:g} for this server, "
            f"got {options.temperature!r}"
        )
    limit = dialect.stop_limit
    if limit is not None and options.stop and len(options.stop) > limit:
        raise InvalidParameterError(
            f"this server takes at most {limit} stop texts, got {len(options.stop)}"
        )


def _tools(options: LLMRequestOptions, dialect: ChatDialect) -> dict[str, Any]:
    if not options.tools:
        return {}
    tools = []
    for tool in options.tools:
        strict = strict_form(tool.parameters) if dialect.strict_tools else None
        function: dict[str, Any] = {"name": tool.name, "parameters": strict or tool.parameters}
        if tool.description:
            function["description"] = tool.description
        if strict is not None:
            function["strict"] = True
        tools.append({"type": "function", "function": function})
    fields: dict[str, Any] = {"tools": tools}
    if options.parallel_tool_calls is not None:
        if not dialect.parallel_tool_calls:
            raise UnsupportedFeatureError(
                "this server cannot be told how many tools to call at once",
                hint="leave parallel_tool_calls out",
            )
        fields["parallel_tool_calls"] = options.parallel_tool_calls
    if options.tool_choice is not None:
        fields["tool_choice"] = _tool_choice(options.tool_choice, options, dialect)
    return fields


def _tool_choice(
    choice: str, options: LLMRequestOptions, dialect: ChatDialect
) -> str | dict[str, Any]:
    if choice in ("auto", "none"):
        return choice
    reasons = options.reasoning_effort not in (None, "none")
    if not dialect.forced_tool_choice or (
        reasons and not dialect.forced_tool_choice_while_reasoning
    ):
        when = " while it reasons" if dialect.forced_tool_choice else ""
        raise UnsupportedFeatureError(
            f"this server cannot be made to call a tool{when} (tool_choice {choice!r})",
            hint="use tool_choice 'auto' and ask for the tool in the prompt",
        )
    if choice == "required":
        return choice
    return {"type": "function", "function": {"name": choice}}


def _response_format(options: LLMRequestOptions, dialect: ChatDialect) -> dict[str, Any]:
    wanted = options.response_format
    if wanted is None or wanted == "text":
        return {}
    if wanted == "json_object":
        if not dialect.json_object:
            raise UnsupportedFeatureError(
                "this server has no JSON mode", hint="ask for JSON in the prompt"
            )
        return {"response_format": {"type": "json_object"}}
    if not dialect.json_schema:
        raise UnsupportedFeatureError(
            "this server takes no JSON Schema as response format",
            hint="use 'json_object' and describe the schema in the prompt"
            if dialect.json_object
            else "describe the schema in the prompt",
        )
    return {"response_format": {"type": "json_schema", "json_schema": named_schema(wanted)}}


def named_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema as answers are asked for; strict if that changes nothing about it."""
    strict = strict_form(schema)
    return {"name": "answer", "strict": strict is not None, "schema": strict or schema}


def _reasoning(options: LLMRequestOptions, dialect: ChatDialect) -> dict[str, Any]:
    effort: str | None = options.reasoning_effort
    if effort is None:
        return {}
    thinks = effort != "none"
    if effort == "max":
        effort = dialect.max_effort
    if dialect.efforts:
        effort = nearest_effort(effort, dialect.efforts)
    match dialect.reasoning_input:
        case "reasoning_effort":
            return {"reasoning_effort": effort}
        case "openrouter":
            return {"reasoning": {"effort": effort}}
        case "thinking":
            return {"thinking": {"type": "enabled" if thinks else "disabled"}}
        case "enable_thinking":
            return {"enable_thinking": thinks}
        case _:
            raise UnsupportedFeatureError(
                "this server takes no reasoning effort", hint="leave reasoning_effort out"
            )
