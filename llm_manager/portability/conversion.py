"""`portable`: the same conversation in a form that can be sent elsewhere."""

from __future__ import annotations

import msgspec

from ..messages import (
    FilePart,
    ImagePart,
    LLMMessage,
    Messages,
    OpaquePart,
    Part,
    TextPart,
    ToolCall,
    as_messages,
)
from .target import Target, TargetLike
from .turns import as_note, in_order


def portable(
    messages: Messages,
    target: TargetLike | None = None,
    *,
    model: str | None = None,
    notes: bool = False,
) -> tuple[LLMMessage, ...]:
    """``messages`` in a form that ``target`` takes, or any provider; what fits is left as it is.

    * Parts that only another dialect understands are left out; without a target, all such parts.
    * Every tool call has its result right behind it, under an id in plain letters that no other
      call has.  A call without a result gets one that says so, and a result without a call
      becomes a message of the user.
    * Arguments of a call that are no JSON object become one, under the name ``INVALID_JSON``.
    * An answer in which nothing is left is left out.

    What the target cannot read otherwise is kept, so that sending it is an
    `UnsupportedFeatureError` and not a silent loss, unless ``notes`` asks for the other.

    Args:
        target: a provider, or the capabilities of one; None: any.
        model: which of the provider's models; default: its active one.
        notes: replace images and files that the target cannot read by a note in brackets, and tool
            calls and results by text where it has no tools.

    Raises:
        InvalidParameterError: an argument is wrong.
    """
    there = None if target is None else Target(target, model)
    conversation = [_with_readable_calls(_reduced(m, there, notes)) for m in as_messages(messages)]
    ordered = in_order([message for message in conversation if not _is_empty(message)])
    if notes and there is not None and there.cannot("tools"):
        ordered = [_told(message) for message in ordered]
    return tuple(ordered)


def _reduced(message: LLMMessage, there: Target | None, notes: bool) -> LLMMessage:
    """A message without the parts that mean nothing to the target."""
    if isinstance(message.content, str):
        return message
    kept: list[Part] = []
    for part in message.content:
        if isinstance(part, OpaquePart):
            if there is not None and there.carries_opaque(message, part):
                kept.append(part)
        elif isinstance(part, ImagePart | FilePart) and notes and there is not None:
            why = there.refusal(message, part)
            kept.append(part if why is None else _note(part))
        else:
            kept.append(part)
    if len(kept) == len(message.content) and all(map(_is, kept, message.content)):
        return message
    return msgspec.structs.replace(message, content=tuple(kept))


def _is(one: Part, other: Part) -> bool:
    return one is other


def _note(part: ImagePart | FilePart) -> TextPart:
    what = "an image" if isinstance(part, ImagePart) else "a file"
    name = getattr(part, "filename", None) or part.media_type or "of unknown type"
    return TextPart(text=f"[Here was {what} ({name}), which you cannot read.]")


def _with_readable_calls(message: LLMMessage) -> LLMMessage:
    calls = tuple(map(_readable, message.tool_calls))
    if calls == message.tool_calls:
        return message
    return msgspec.structs.replace(message, tool_calls=calls)


def _readable(call: ToolCall) -> ToolCall:
    try:
        msgspec.json.decode(call.arguments_json or "{}", type=dict)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        broken = msgspec.json.encode({"INVALID_JSON": call.arguments_json}).decode()
        return msgspec.structs.replace(call, arguments_json=broken)
    return call


def _is_empty(message: LLMMessage) -> bool:
    """Whether an answer says and asks nothing, as one that was broken off early does."""
    return message.role == "assistant" and not message.tool_calls and not message.content


def _told(message: LLMMessage) -> LLMMessage:
    """A call or its result as text, for a model that has no tools."""
    if message.role == "tool":
        return as_note(message)
    if not message.tool_calls:
        return message
    calls = [f"[Called the tool {c.name} with {c.arguments_json}]" for c in message.tool_calls]
    content = (*_parts(message), TextPart(text="\n".join(calls)))
    return msgspec.structs.replace(message, content=content, tool_calls=())


def _parts(message: LLMMessage) -> tuple[Part, ...]:
    if isinstance(message.content, str):
        return (TextPart(text=f"{message.content}\n"),) if message.content else ()
    return message.content
