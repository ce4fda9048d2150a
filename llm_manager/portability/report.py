"""`portability_report`: what becomes of a conversation when it goes to another provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from ..asking import Options
from ..messages import (
    Capability,
    Data,
    FilePart,
    ImagePart,
    LLMMessage,
    Messages,
    OpaquePart,
    ToolCall,
    as_messages,
)
from ..tokens import estimate_prompt_tokens
from .target import NOT_SENT, Target, TargetLike
from .turns import orphaned_results, unanswered_calls

Severity: TypeAlias = Literal["lost", "changed", "kept"]

_OPTIONS = (
    "temperature", "max_tokens", "top_p", "presence_penalty", "frequency_penalty", "stop", "seed",
    "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort",
)  # fmt: skip
_NEEDED: dict[str, Capability] = {"tools": "tools", "reasoning_effort": "reasoning"}


class PortabilityItem(Data, frozen=True, kw_only=True):
    """What becomes of one thing.

    Attributes:
        index: which message it is in, from 0; None: it concerns all of them, or an option.
        what: ``image``, ``file``, ``reasoning``, ``opaque part``, ``tool call``, ``tool result``,
            ``tool call id``, ``system message``, ``name``, ``detail``, ``length``,
            ``conversation``, or ``option`` and its name.
        severity: ``lost``: the target does not get it; ``changed``: it gets it in another form;
            ``kept``.
        why: the reason, for people.
        blocks: whether the conversation cannot be sent as it is because of it.  `portable` takes
            away what blocks, except for the length and, unless told, what a model cannot read.
    """

    index: int | None
    what: str
    severity: Severity
    why: str
    blocks: bool = False


class PortabilityReport(Data, frozen=True, kw_only=True):
    """What becomes of a conversation at a target; plain text is kept everywhere and not listed.

    Attributes:
        target: provider, or provider and model.
        items: in the order of the messages.
    """

    target: str
    items: tuple[PortabilityItem, ...]

    @property
    def lost(self) -> tuple[PortabilityItem, ...]:
        """What the target does not get."""
        return self._with("lost")

    @property
    def changed(self) -> tuple[PortabilityItem, ...]:
        """What it gets in another form."""
        return self._with("changed")

    @property
    def kept(self) -> tuple[PortabilityItem, ...]:
        """What it gets as it is."""
        return self._with("kept")

    @property
    def lossless(self) -> bool:
        """Whether everything is kept."""
        return not (self.lost or self.changed)

    @property
    def sendable(self) -> bool:
        """Whether the conversation can be sent as it is."""
        return not any(item.blocks for item in self.items)

    def __str__(self) -> str:
        counts = (len(self.kept), len(self.changed), len(self.lost))
        head = "to {}: {} kept, {} changed, {} lost".format(self.target, *counts)
        return "\n".join([head, *map(_line, (*self.lost, *self.changed))])

    def _with(self, severity: Severity) -> tuple[PortabilityItem, ...]:
        return tuple(item for item in self.items if item.severity == severity)


def portability_report(
    messages: Messages,
    target: TargetLike,
    *,
    model: str | None = None,
    options: Options = None,
) -> PortabilityReport:
    """What becomes of ``messages`` at ``target``; nothing is sent and nobody is asked.

    What the provider's dialect carries is found out by writing the messages in it.  What a model
    can do is known as far as the model list is (`BaseLLMProvider.get_capabilities`); what is not
    known is taken to work.

    Args:
        target: a provider, or the capabilities of one, with which less can be told.
        model: which of the provider's models; default: its active one.
        options: what the next request will ask for.

    Raises:
        InvalidParameterError: an argument is wrong.
    """
    there = Target(target, model, options)
    conversation = as_messages(messages)
    items = list(_of_conversation(conversation, there))
    for index, message in enumerate(conversation):
        items += _of_message(index, message, there)
    items += _of_turns(conversation)
    if not any(item.blocks for item in items):
        refused = there.refusal_of_all(conversation)
        if refused is not None:
            items.append(_item(None, "conversation", refused, blocks=True))
    items.sort(key=lambda item: -1 if item.index is None else item.index)
    return PortabilityReport(target=there.name, items=tuple(items))


def _of_conversation(
    conversation: tuple[LLMMessage, ...], there: Target
) -> Iterator[PortabilityItem]:
    window_tokens = there.capabilities.context_window_tokens
    if window_tokens is not None:
        tokens = estimate_prompt_tokens(there.request(conversation), there.image_rule)
        if tokens > window_tokens:
            why = f"about {tokens} tokens, and it reads {window_tokens}"
            yield _item(None, "length", why, blocks=True)
    for field in _OPTIONS:
        if getattr(there.options, field) in (None, ()):
            continue
        needed = _NEEDED.get(field)
        if needed is not None and there.cannot(needed):
            blocks = field == "tools"
            yield _item(None, f"option {field}", f"it has no {needed}", blocks=blocks)
        elif field != "response_format" or not _emulates_schema(there):
            fate = there.fate_of_option(field)
            if fate is not None:
                yield _item(None, f"option {field}", fate, blocks=fate != NOT_SENT)
    past_the_beginning = False
    for index, message in enumerate(conversation):
        past_the_beginning |= message.role != "system"
        if message.role == "system" and past_the_beginning and not there.carries_order(message):
            why = "it is read before all other messages, not where it stands"
            yield _item(index, "system message", why, "changed")


def _emulates_schema(there: Target) -> bool:
    fact = there.capabilities.features.get("json_schema")
    asks_for_schema = isinstance(there.options.response_format, dict)
    return asks_for_schema and fact is not None and fact.source == "emulated"


def _of_message(index: int, message: LLMMessage, there: Target) -> Iterator[PortabilityItem]:
    understood = False
    for part in () if isinstance(message.content, str) else message.content:
        if isinstance(part, OpaquePart):
            carried = there.carries_opaque(message, part)
            understood |= carried
            why = f"{part.kind}, which only {part.origin} understands"
            yield _item(index, "opaque part", why, "kept" if carried else "lost")
        elif isinstance(part, ImagePart | FilePart):
            yield from _of_file(index, message, part, there)
    # Reasoning that goes back in the form of its own dialect need not go back as text.
    if message.reasoning and not understood and not there.carries_field(message, "reasoning"):
        yield _item(index, "reasoning", "the reasoning text is not sent back")
    if message.name and not there.carries_field(message, "name"):
        yield _item(index, "name", f"the name {message.name!r} is not sent")
    for call in message.tool_calls:
        yield from _of_call(index, call, there)
    if message.tool_call_id is not None and there.cannot("tools"):
        yield _item(index, "tool result", "it has no tools")


def _of_file(
    index: int, message: LLMMessage, part: ImagePart | FilePart, there: Target
) -> Iterator[PortabilityItem]:
    what = "image" if isinstance(part, ImagePart) else "file"
    refused = there.refusal(message, part)
    if refused is not None:
        yield _item(index, what, refused, blocks=True)
        return
    yield _item(index, what, "it is sent", "kept")
    if isinstance(part, ImagePart) and part.detail and not there.carries_detail(message, part):
        yield _item(index, "detail", f"the detail level {part.detail!r} is not sent")


def _of_call(index: int, call: ToolCall, there: Target) -> Iterator[PortabilityItem]:
    refused = there.refusal_of_call(call)
    if refused is not None:
        yield _item(index, "tool call", refused, blocks=True)
        return
    if there.cannot("tools"):
        yield _item(index, "tool call", "it has no tools")
        return
    yield _item(index, "tool call", f"the call of {call.name} is sent", "kept")
    if not there.keeps_id(call.id):
        why = f"{call.id!r} is replaced, in the call and in its result"
        yield _item(index, "tool call id", why, "changed")


def _of_turns(conversation: tuple[LLMMessage, ...]) -> Iterator[PortabilityItem]:
    for index, call in unanswered_calls(conversation):
        why = f"the call of {call.name} has no result, which services refuse"
        yield _item(index, "tool call", why, "changed", blocks=True)
    for index in orphaned_results(conversation):
        why = "it belongs to no call before it, which services refuse"
        yield _item(index, "tool result", why, "changed", blocks=True)


def _item(
    index: int | None, what: str, why: str, severity: Severity = "lost", *, blocks: bool = False
) -> PortabilityItem:
    return PortabilityItem(index=index, what=what, severity=severity, why=why, blocks=blocks)


def _line(item: PortabilityItem) -> str:
    where = "" if item.index is None else f"message {item.index}: "
    blocks = " (blocks)" if item.blocks else ""
    return f"  {item.severity}{blocks}: {where}{item.what}: {item.why}"
