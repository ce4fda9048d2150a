"""What a conversation consists of: messages and their parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, get_args

import msgspec

from ..checks import check_choice, shown
from ..errors import InvalidParameterError, InvalidResponseError
from .data import Data, from_mapping

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


PromptCache: TypeAlias = Literal["5m", "1h"]


class TextPart(Data, frozen=True, kw_only=True, tag="text", tag_field="type"):
    """A piece of text inside a message."""

    text: str


class ImagePart(Data, frozen=True, kw_only=True, tag="image", tag_field="type"):
    """An image: either its bytes with a media type, or a URL.

    Attributes:
        data: the encoded image file (PNG, JPEG, ...), or None when ``url`` is given.
        url: ``https:`` or ``data:`` URL, or None when ``data`` is given.
        media_type: e.g. ``"image/png"``; required with ``data``.
        detail: how closely the model should look; None leaves it to the provider.
    """

    data: bytes | None = None
    url: str | None = None
    media_type: str | None = None
    detail: Literal["auto", "low", "high"] | None = None

    def __post_init__(self) -> None:
        _check_source("an image", self.data, self.url, self.media_type)

    def __repr__(self) -> str:
        return _without_content(self)


class FilePart(Data, frozen=True, kw_only=True, tag="file", tag_field="type"):
    """A document: either its bytes with a media type, or a URL.

    Attributes:
        data: content of the file, or None when ``url`` is given.
        url: where the provider can fetch it, or None when ``data`` is given.
        media_type: e.g. ``"application/pdf"``; required with ``data``.
        filename: name to show to the model, or None.
    """

    data: bytes | None = None
    url: str | None = None
    media_type: str | None = None
    filename: str | None = None

    def __post_init__(self) -> None:
        _check_source("a file", self.data, self.url, self.media_type)

    def __repr__(self) -> str:
        return _without_content(self)


class OpaquePart(Data, frozen=True, kw_only=True, tag="opaque", tag_field="type"):
    """A piece of an answer that only the dialect it came in understands.

    It is kept in the history because the service wants it back: signed reasoning, results of tools
    that the service runs itself, whatever it invents next.  A codec of another dialect leaves it
    out.

    Attributes:
        origin: the dialect that understands it, e.g. ``"anthropic"``.
        kind: what it is there, e.g. ``"thinking"``.
        data: as the service sent it, JSON-ready.
    """

    origin: str
    kind: str
    data: dict[str, Any]


Part: TypeAlias = TextPart | ImagePart | FilePart | OpaquePart


def _without_content(part: ImagePart | FilePart) -> str:
    """A part for logs and error messages, which a photograph would fill."""
    given = {name: getattr(part, name) for name in part.__struct_fields__}
    if part.url is not None and part.url.startswith("data:"):
        given["url"] = f"{part.url[:40]}…"
    shown = [f"{name}={value!r}" for name, value in given.items() if value and name != "data"]
    if part.data is not None:
        shown.insert(0, f"data=<{len(part.data)} bytes>")
    return f"{type(part).__name__}({', '.join(shown)})"


def _check_source(what: str, data: bytes | None, url: str | None, media_type: str | None) -> None:
    if (data is None) == (url is None):
        given = "neither" if data is None else "both"
        raise InvalidParameterError(f"{what} needs either data or url, got {given}")
    if data is not None and not media_type:
        raise InvalidParameterError(f'{what} given as data needs a media_type, e.g. "image/png"')


class ToolCall(Data, frozen=True, kw_only=True):
    """The model asks to call one of the tools it was offered.

    Attributes:
        id: id that the tool's result has to carry in ``tool_call_id``.
        name: name of the tool.
        arguments_json: the arguments exactly as the model wrote them.
    """

    id: str
    name: str
    arguments_json: str = "{}"

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments as a dictionary.

        Raises:
            InvalidResponseError: the model did not write a JSON object.
        """
        try:
            return msgspec.json.decode(self.arguments_json or "{}", type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise InvalidResponseError(
                f"the arguments for tool {self.name!r} are not a JSON object: {error}"
            ) from None


class LLMMessage(Data, frozen=True, kw_only=True):
    """One message of a conversation.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: text, or parts in the order in which the model shall read them.
        name: name of the speaker, or None.
        tool_calls: calls that an assistant message asks for.
        tool_call_id: for role ``tool``: which call this is the result of.
        reasoning: for role ``assistant``: the reasoning text that came with it, or None.
        cache: keep the prompt up to the end of this message in the service's prompt cache for so
            long, where the service wants to be told; others cache by themselves.

    Raises:
        InvalidParameterError: unknown role, or fields that do not belong to the role.
    """

    role: Role
    content: str | tuple[Part, ...] = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None
    cache: PromptCache | None = None

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise InvalidParameterError(
                f"unknown role {self.role!r}; use one of {', '.join(get_args(Role))}"
            )
        if isinstance(self.content, list):
            msgspec.structs.force_setattr(self, "content", tuple(self.content))
        if not isinstance(self.content, str) and not (
            isinstance(self.content, tuple) and all(isinstance(p, Part) for p in self.content)
        ):
            raise InvalidParameterError(
                "content must be text or a sequence of parts (TextPart, ImagePart, FilePart, "
                f"OpaquePart), got {shown(self.content)}"
            )
        if self.role == "tool" and not self.tool_call_id:
            raise InvalidParameterError("a message with role 'tool' needs a tool_call_id")
        check_choice("cache", self.cache, get_args(PromptCache))
        if self.tool_calls and self.role != "assistant":
            raise InvalidParameterError(
                f"only role 'assistant' can have tool_calls, not {self.role!r}"
            )

    @classmethod
    def system(cls, text: str) -> LLMMessage:
        return cls(role="system", content=text)

    @classmethod
    def user(cls, *content: str | Part | HasPart) -> LLMMessage:
        """A user message from text and parts, e.g. ``LLMMessage.user("What is it?", image)``."""
        if len(content) == 1 and isinstance(content[0], str):
            return cls(role="user", content=content[0])
        return cls(role="user", content=tuple(_as_part(piece) for piece in content))

    @classmethod
    def assistant(cls, text: str = "", *, tool_calls: Iterable[ToolCall] = ()) -> LLMMessage:
        return cls(role="assistant", content=text, tool_calls=tuple(tool_calls))

    @classmethod
    def tool(cls, tool_call_id: str, text: str) -> LLMMessage:
        """The result of one tool call, to be sent back to the model."""
        return cls(role="tool", content=text, tool_call_id=tool_call_id)

    @property
    def text(self) -> str:
        """The text of the message, without its other parts."""
        if isinstance(self.content, str):
            return self.content
        return "".join(p.text for p in self.content if isinstance(p, TextPart))


class HasPart(Protocol):
    """What can be put into a message although it is no part itself, e.g. an `ImageInput`."""

    def to_part(self) -> Part:
        """The part that it makes of itself."""


def _as_part(piece: str | Part | HasPart) -> Part:
    if isinstance(piece, str):
        return TextPart(text=piece)
    return piece if isinstance(piece, Part) else piece.to_part()


Messages: TypeAlias = (
    str | LLMMessage | Mapping[str, Any] | Sequence["LLMMessage | Mapping[str, Any]"]
)
"""What the chat verbs accept: text, one message, or a sequence of messages or dictionaries."""


def as_messages(messages: Messages) -> tuple[LLMMessage, ...]:
    """Normalise what a caller may write into a conversation.

    Raises:
        InvalidParameterError: it is empty, has an unknown role, or cannot be read.
    """
    if isinstance(messages, str):
        messages = LLMMessage.user(messages)
    if isinstance(messages, LLMMessage | Mapping):
        messages = [messages]
    try:
        result = tuple(
            m if isinstance(m, LLMMessage) else from_mapping(LLMMessage, m, "message")
            for m in messages
        )
    except TypeError:
        raise InvalidParameterError(
            f"messages must be text, a message or a sequence of messages, got {shown(messages)}"
        ) from None
    if not result:
        raise InvalidParameterError("messages is empty; give at least one message")
    if not any(m.content or m.tool_calls for m in result):
        raise InvalidParameterError("every message is empty; give at least one some content")
    return result
