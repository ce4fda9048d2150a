"""What a target does with a message.

No table says which dialect carries what: the target's own codec is asked to write the message with
something and without it.  If both give the same bytes, the dialect does not carry it.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import msgspec

from ..asking import Options
from ..errors import InvalidParameterError, LLMError
from ..messages import (
    Capability,
    FilePart,
    ImagePart,
    LLMCapabilities,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    OpaquePart,
    Part,
    TextPart,
    ToolCall,
    as_options,
)
from ..provider import BaseLLMProvider
from ..wire import Codec

P = TypeVar("P", bound=Part)
TargetLike: TypeAlias = BaseLLMProvider | LLMCapabilities

NOT_SENT = "it is not sent"
"""Why an option is lost that nobody complains about."""

_BEFORE = LLMMessage.user("-")
_FILLER = TextPart(text="-")
_ABOUT_TOOLS = ("tool_choice", "parallel_tool_calls")


class Target:
    """A provider or one of its models, as somewhere to send messages to.

    Args:
        given: the provider, or what is known about a model of some provider.
        model: which of the provider's models; None: its active one.
        options: what the requests will ask for.

    Raises:
        InvalidParameterError: it is none of these, or an option is wrong.
    """

    def __init__(
        self, given: TargetLike, model: str | None = None, options: Options = None
    ) -> None:
        if not isinstance(given, BaseLLMProvider | LLMCapabilities):
            raise InvalidParameterError(
                f"the target must be a provider or LLMCapabilities, got {given!r:.60}"
            )
        self.options = as_options(options)
        self.image_rule = getattr(given, "image_rule", None)
        self._codec: Codec | None = None
        # A provider without a wire carries nothing special; of capabilities alone, who knows.
        self._carries_unseen = isinstance(given, LLMCapabilities)
        if isinstance(given, LLMCapabilities):
            self.capabilities = given
            return
        model = model or given.active_model
        self.capabilities = given.get_capabilities(model)
        if hasattr(given, "codec"):
            self._codec = given._codec_for(self.request(()))

    @property
    def name(self) -> str:
        """Provider and model, for people."""
        model = self.capabilities.model
        return (
            f"{self.capabilities.provider_id}/{model}" if model else self.capabilities.provider_id
        )

    def request(
        self, messages: tuple[LLMMessage, ...], options: LLMRequestOptions | None = None
    ) -> LLMRequest:
        """A request with these messages, which nobody sends."""
        return LLMRequest(
            id="portability",
            model=self.capabilities.model or "-",
            messages=messages,
            options=self.options if options is None else options,
        )

    def cannot(self, capability: Capability) -> bool:
        """Whether it is known to lack ``capability``."""
        return self.capabilities.supports(capability) is False

    def refusal(self, message: LLMMessage, part: ImagePart | FilePart) -> str | None:
        """Why ``part`` cannot be sent in ``message``, or None if it can."""
        if isinstance(part, ImagePart) and self.cannot("vision"):
            return "it reads no images"
        if isinstance(part, FilePart) and self.cannot("files"):
            return "it reads no files"
        written = self._written(_with(message, (_FILLER, _hollow(part))))
        return written.message if isinstance(written, LLMError) else None

    def carries_detail(self, message: LLMMessage, image: ImagePart) -> bool:
        """Whether it is told how closely to look at ``image``."""
        hollow = _hollow(image)
        vague = msgspec.structs.replace(hollow, detail=None)
        return self._differ(_with(message, (hollow,)), _with(message, (vague,)))

    def carries_opaque(self, message: LLMMessage, part: OpaquePart) -> bool:
        """Whether it understands a part that only its own dialect can."""
        written = self._written(_with(message, (_FILLER, part)))
        return isinstance(written, bytes) and written != self._written(_with(message, (_FILLER,)))

    def carries_field(self, message: LLMMessage, field: str) -> bool:
        """Whether ``reasoning`` or ``name`` of ``message`` gets there."""
        message = _with(message, (_FILLER,))
        return self._differ(message, msgspec.structs.replace(message, **{field: None}))

    def carries_order(self, system: LLMMessage) -> bool:
        """Whether it reads a system message where it stands."""
        if self._codec is None:
            return True
        system = _with(system, (TextPart(text=system.text or "-"),))
        return self._body((_BEFORE, system)) != self._body((system, _BEFORE))

    def keeps_id(self, id: str) -> bool:
        """Whether the id of a tool call is sent as it is."""
        call = LLMMessage.assistant("-", tool_calls=[ToolCall(id=id, name="tool")])
        written = self._written(call)
        return not isinstance(written, bytes) or msgspec.json.encode(id) in written

    def refusal_of_call(self, call: ToolCall) -> str | None:
        """Why a tool call cannot be sent, or None if it can."""
        written = self._written(LLMMessage.assistant("-", tool_calls=[call]))
        return written.message if isinstance(written, LLMError) else None

    def refusal_of_all(self, messages: tuple[LLMMessage, ...]) -> str | None:
        """Why the conversation cannot be sent, or None if it can."""
        written = self._body(tuple(map(_hollow_message, messages)))
        return written.message if isinstance(written, LLMError) else None

    def fate_of_option(self, field: str) -> str | None:
        """Why a given option does not get there, or None if it does."""
        # What is said about tools makes sense only beside them.
        beside: dict[str, Any] = {"tools": self.options.tools} if field in _ABOUT_TOOLS else {}
        given = LLMRequestOptions(**beside, **{field: getattr(self.options, field)})
        written = self._body((_BEFORE,), given)
        if isinstance(written, LLMError):
            return written.message
        same = written is not None and written == self._body(
            (_BEFORE,), LLMRequestOptions(**beside)
        )
        return NOT_SENT if same else None

    def _differ(self, one: LLMMessage, other: LLMMessage) -> bool:
        if self._codec is None:
            return self._carries_unseen
        return self._written(one) != self._written(other)

    def _written(self, message: LLMMessage) -> bytes | LLMError | None:
        """A conversation around ``message`` as the codec writes it, or why it does not."""
        if message.role == "tool":
            call = ToolCall(id=message.tool_call_id or "-", name="tool")
            asked = LLMMessage.assistant("-", tool_calls=[call])
            return self._body((_BEFORE, asked, message))
        return self._body((_BEFORE, message))

    def _body(
        self, messages: tuple[LLMMessage, ...], options: LLMRequestOptions | None = None
    ) -> bytes | LLMError | None:
        if self._codec is None:
            return None
        try:
            return self._codec.encode(self.request(messages, options or LLMRequestOptions()))
        except LLMError as error:
            return error


def _hollow_message(message: LLMMessage) -> LLMMessage:
    if isinstance(message.content, str):
        return message
    return _with(message, tuple(map(_hollow, message.content)))


def _hollow(part: P) -> P:
    """``part`` without the content of its file: that does not matter to a codec, and is large."""
    if isinstance(part, ImagePart | FilePart) and part.data is not None:
        return msgspec.structs.replace(part, data=b"-")
    return part


def _with(message: LLMMessage, content: tuple[Part, ...]) -> LLMMessage:
    return msgspec.structs.replace(message, content=content)
