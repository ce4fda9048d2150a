"""Writes requests for OpenAI's Responses API.

A conversation is a list of items: messages, calls of tools, their results, and whatever the service
put into an earlier answer and wants back, in the order in which it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from ..errors import UnsupportedFeatureError
from ..messages import (
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
from .dialect_habits import nearest_effort
from .loose import encoded
from .openai_names import (
    accepted_efforts,
    given_of,
    is_reasoning_model,
    reasons,
    refused_options,
)
from .openai_request import data_url, named_schema
from .openai_strict import strict_form

ORIGIN = "openai_responses"
"""Origin of the parts that only this dialect understands."""
PHASE, PLACE = "phase", "function_call"
"""Kinds of such parts that are marks: what the next text is; where a call stood."""

Summary: TypeAlias = Literal["auto", "concise", "detailed"]

# The API has no such fields, and an answer is one without them.
_UNKNOWN = ("presence_penalty", "frequency_penalty", "seed")


def encode_request(request: LLMRequest, summary: Summary | None) -> bytes:
    """The body to send to ``/responses``.

    Nothing is stored at the service; its reasoning comes encrypted, and goes back with the next
    request.

    Raises:
        UnsupportedFeatureError: the API cannot do it.
        InvalidParameterError: a value is not JSON.
    """
    options = request.options
    if options.stop:
        raise UnsupportedFeatureError(
            "the Responses API takes no stop texts",
            hint="leave stop out, or use api='chat' with a model that does not reason",
        )
    body: dict[str, Any] = {
        "model": request.model,
        "input": [item for message in request.messages for item in _items(message)],
        "store": False,
        "stream": request.stream,
        **_sampling(request),
        **_reasoning(request, summary),
        **_tools(options),
    }
    answer_format = _answer_format(options)
    if answer_format is not None:
        body["text"] = {"format": answer_format}
    return encoded(body | options.extra)


def left_out(request: LLMRequest) -> tuple[str, ...]:
    """The names of options that are given and not sent, because the service would refuse them."""
    refused = refused_options(request.model, request.options)
    return tuple(dict.fromkeys((*refused, *given_of(request.options, _UNKNOWN))))


# ---- the conversation ----------------------------------------------------------------------------


def _items(message: LLMMessage) -> list[dict[str, Any]]:
    if message.role == "assistant":
        return _answer_items(message)
    content = _content(message)
    if message.role == "tool":
        result = {"type": "function_call_output", "call_id": message.tool_call_id}
        return [{**result, "output": content}]
    return [{"role": message.role, "content": content}]


def _content(message: LLMMessage) -> str | list[dict[str, Any]]:
    given = () if isinstance(message.content, str) else message.content
    # What only another dialect understands is left out.
    parts = [part for part in given if not isinstance(part, OpaquePart)]
    if all(isinstance(part, TextPart) for part in parts):
        return message.text
    return [encode_part(part) for part in parts]


def encode_part(part: Part) -> dict[str, Any]:
    """One part of a user's message, or of a tool's result, as the service wants it.

    Raises:
        UnsupportedFeatureError: it does not take it.
    """
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, ImagePart):
        url = part.url or data_url(part)
        return {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}
    if isinstance(part, FilePart):
        if part.url is not None and not part.url.startswith("data:"):
            return {"type": "input_file", "file_url": part.url}
        content = part.url or data_url(part)
        return {"type": "input_file", "filename": part.filename or "file", "file_data": content}
    raise UnsupportedFeatureError(f"a part of origin {part.origin!r} means nothing to a user")


def _answer_items(message: LLMMessage) -> list[dict[str, Any]]:
    """The items of an earlier answer, in the order in which they came."""
    calls = {call.id: call for call in message.tool_calls}
    items = list(_parts_of_answer(message, calls))
    items += [_call(call) for call in calls.values()]
    # Reasoning without what it led to is refused: the answer was broken off.
    while items and items[-1].get("type") == "reasoning":
        items.pop()
    return items


def _parts_of_answer(message: LLMMessage, calls: dict[str, ToolCall]) -> Iterator[dict[str, Any]]:
    """The items of ``message``; takes those calls out of ``calls`` whose place is known."""
    content = message.content
    phase: dict[str, Any] = {}
    for part in (TextPart(text=content),) if isinstance(content, str) else content:
        if isinstance(part, TextPart):
            if part.text:
                yield {"role": "assistant", "content": part.text, **phase}
            phase = {}
        elif not isinstance(part, OpaquePart):
            raise UnsupportedFeatureError(
                "a message with role 'assistant' can only carry text on this wire",
                hint="put images and files into a message with role 'user'",
            )
        elif part.origin != ORIGIN:
            continue
        elif part.kind == PHASE:
            phase = part.data
        elif part.kind == PLACE:
            call = calls.pop(part.data.get("call_id", ""), None)
            if call is not None:
                yield {**part.data, **_call(call)}
        elif part.kind != "reasoning" or part.data.get("encrypted_content"):
            # Reasoning that is not encrypted was meant to be looked up at the service.
            yield {name: value for name, value in part.data.items() if value is not None}


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = call.arguments_json or "{}"
    return {
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
    }


# ---- options -------------------------------------------------------------------------------------


def _sampling(request: LLMRequest) -> dict[str, Any]:
    options, missing = request.options, left_out(request)
    given = {"max_output_tokens": options.max_tokens}
    given |= {
        name: getattr(options, name) for name in ("temperature", "top_p") if name not in missing
    }
    return {name: value for name, value in given.items() if value is not None}


def _reasoning(request: LLMRequest, summary: Summary | None) -> dict[str, Any]:
    model, effort = request.model, request.options.reasoning_effort
    reasoning: dict[str, Any] = {}
    if effort is not None:
        accepted = accepted_efforts(model)
        # Of a model that is not known by its name, nothing beyond "high" can be taken for granted.
        word = "high" if effort == "max" and not accepted else effort
        reasoning["effort"] = nearest_effort(word, accepted) if accepted else word
    thinks = reasons(model, effort)
    if thinks and summary is not None:
        reasoning["summary"] = summary
    fields: dict[str, Any] = {"reasoning": reasoning} if reasoning else {}
    if thinks or is_reasoning_model(model):
        fields["include"] = ["reasoning.encrypted_content"]
    return fields


def _tools(options: LLMRequestOptions) -> dict[str, Any]:
    if not options.tools:
        return {}
    tools = []
    for tool in options.tools:
        strict = strict_form(tool.parameters)
        # Said in any case: what is not said counts as strict here.
        function = {"parameters": strict or tool.parameters, "strict": strict is not None}
        about = {"description": tool.description} if tool.description else {}
        tools.append({"type": "function", "name": tool.name, **about, **function})
    fields: dict[str, Any] = {"tools": tools}
    if options.parallel_tool_calls is not None:
        fields["parallel_tool_calls"] = options.parallel_tool_calls
    choice = options.tool_choice
    if choice is not None:
        plain = choice in ("auto", "none", "required")
        fields["tool_choice"] = choice if plain else {"type": "function", "name": choice}
    return fields


def _answer_format(options: LLMRequestOptions) -> dict[str, Any] | None:
    wanted = options.response_format
    if wanted is None or wanted == "text":
        return None
    if wanted == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", **named_schema(wanted)}
