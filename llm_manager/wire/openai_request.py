"""Writes requests in the chat completions dialect of OpenAI, and in its variations."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Literal

from ..errors import InvalidParameterError, UnsupportedFeatureError
from ..messages import (
    Data,
    FilePart,
    ImagePart,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    TextPart,
    ToolCall,
)
from .loose import encoded


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
        reasoning_sent_back: name of the message field in which the reasoning of an assistant
            message with tool calls goes back to the server; None leaves reasoning out.
        think_tags: whether reasoning arrives as ``<think>...</think>`` at the beginning of the
            text, and is to be taken out of it.
        stop_limit: how many stop texts the server takes; None: any number.
        temperature_range: lowest and highest temperature it takes.
        json_object: whether it takes the response format ``json_object``.
        json_schema: whether it takes a JSON Schema as response format.
        forced_tool_choice: whether the model can be made to call a tool.
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
    reasoning_sent_back: Literal["reasoning_content", "reasoning"] | None = None
    think_tags: bool = False
    stop_limit: int | None = None
    temperature_range: tuple[float, float] = (0.0, 2.0)
    json_object: bool = True
    json_schema: bool = True
    forced_tool_choice: bool = True
    files: bool = True
    file_urls: bool = False
    requires_finish: bool = True


def encode_request(request: LLMRequest, dialect: ChatDialect) -> bytes:
    """The body to send to ``/chat/completions``.

    Raises:
        UnsupportedFeatureError: the dialect cannot express the request.
        InvalidParameterError: a value is out of the server's range, or is not JSON.
    """
    options = request.options
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message, dialect) for message in request.messages],
    }
    body |= _sampling(options, dialect)
    body |= _tools(options, dialect)
    body |= _response_format(options, dialect)
    body |= _reasoning(options, dialect)
    body["stream"] = request.stream and (
        dialect.stream_with_response_format or "response_format" not in body
    )
    if body["stream"] and dialect.stream_usage:
        body["stream_options"] = {"include_usage": True}
    return encoded(body | options.extra)


def _message(message: LLMMessage, dialect: ChatDialect) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role, "content": _content(message, dialect)}
    if message.name is not None:
        out["name"] = message.name
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        # Some servers refuse an empty text next to calls; all accept null.
        out["content"] = out["content"] or None
        out["tool_calls"] = [_call(call) for call in message.tool_calls]
        if dialect.reasoning_sent_back and message.reasoning:
            out[dialect.reasoning_sent_back] = message.reasoning
    return out


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments_json or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _content(message: LLMMessage, dialect: ChatDialect) -> str | list[dict[str, Any]]:
    # Text stays text wherever it can: many servers understand parts only where an image is.
    if isinstance(message.content, str) or all(isinstance(p, TextPart) for p in message.content):
        return message.text
    if message.role != "user":
        raise UnsupportedFeatureError(
            f"a message with role {message.role!r} can only carry text on this wire",
            hint="put images and files into a message with role 'user'",
        )
    return [_part(part, dialect) for part in message.content]


def _part(part: TextPart | ImagePart | FilePart, dialect: ChatDialect) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        image = {"url": part.url or _data_url(part)}
        if part.detail is not None:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    if not dialect.files:
        raise UnsupportedFeatureError(
            "this server takes no files", hint="send the text of the file"
        )
    url = part.url or _data_url(part)
    if not (dialect.file_urls or url.startswith("data:")):
        raise UnsupportedFeatureError(
            "this server does not fetch files by URL", hint="read the file and give it as data"
        )
    return {"type": "file", "file": {"filename": part.filename or "file", "file_data": url}}


def _data_url(part: ImagePart | FilePart) -> str:
    return f"data:{part.media_type};base64,{b64encode(part.data or b'').decode()}"


def _sampling(options: LLMRequestOptions, dialect: ChatDialect) -> dict[str, Any]:
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
        function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
        if tool.description:
            function["description"] = tool.description
        tools.append({"type": "function", "function": function})
    choice = options.tool_choice
    if choice is None:
        return {"tools": tools}
    if choice in ("auto", "none"):
        return {"tools": tools, "tool_choice": choice}
    if not dialect.forced_tool_choice:
        raise UnsupportedFeatureError(
            f"this server cannot be made to call a tool (tool_choice {choice!r})",
            hint="use tool_choice 'auto' and ask for the tool in the prompt",
        )
    if choice == "required":
        return {"tools": tools, "tool_choice": choice}
    return {"tools": tools, "tool_choice": {"type": "function", "function": {"name": choice}}}


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
    schema = {"name": "answer", "strict": True, "schema": wanted}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _reasoning(options: LLMRequestOptions, dialect: ChatDialect) -> dict[str, Any]:
    effort: str | None = options.reasoning_effort
    if effort is None:
        return {}
    thinks = effort != "none"
    if effort == "max":
        effort = dialect.max_effort
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
