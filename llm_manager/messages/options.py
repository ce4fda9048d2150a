"""What is asked, and how it shall be answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from ..checks import check_choice, check_number, check_optional_number, shown
from ..errors import InvalidParameterError
from ..schemas import described, schema_of
from .conversation import LLMMessage, PromptCache
from .data import Data, from_mapping, merged

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "max"]


Priority: TypeAlias = Literal["interactive", "normal", "background"]


ResponseCache: TypeAlias = Literal["use", "refresh", "off"]


_EFFORTS = get_args(ReasoningEffort)
_PROMPT_CACHES = get_args(PromptCache)
_PRIORITIES = get_args(Priority)
_RESPONSE_CACHES = get_args(ResponseCache)
_BOUNDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("temperature", {"low": 0, "high": 2}),
    ("max_tokens", {"low": 1, "whole": True}),
    ("top_p", {"low": 0, "high": 1}),
    ("presence_penalty", {"low": -2, "high": 2}),
    ("frequency_penalty", {"low": -2, "high": 2}),
    ("seed", {"whole": True}),
)


class ToolDefinition(Data, frozen=True, kw_only=True):
    """A function the model may ask to be called.

    Attributes:
        name: letters, digits, ``_`` and ``-``, at most 64 characters.
        description: tells the model when and how to use it.
        parameters: JSON Schema of the arguments, an object schema.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )

    def __post_init__(self) -> None:
        plain = self.name.replace("_", "").replace("-", "")
        if not (1 <= len(self.name) <= 64 and plain.isalnum() and plain.isascii()):
            raise InvalidParameterError(
                f"{self.name!r} is no tool name: 1 to 64 letters, digits, '_' or '-'"
            )

    @classmethod
    def from_function(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> ToolDefinition:
        """The definition that the annotations and the docstring of a function make.

        Args:
            function: a function or a bound method, synchronous or not; see `described`.
            name: instead of the function's name.
            description: instead of what its docstring says.

        Raises:
            InvalidParameterError: a model could not be told how to call it; the text says why.
        """
        known = described(function)
        return cls(
            name=name or known.name,
            description=known.description if description is None else description,
            parameters=known.parameters,
        )

    @classmethod
    def from_dict(cls, definition: Mapping[str, Any]) -> ToolDefinition:
        """A definition in the form of OpenAI (``{"type": "function", "function": {...}}``), of its
        Responses API (the same without the inner one), of Anthropic (``input_schema``), or ours.

        Raises:
            InvalidParameterError: a key is missing or unknown, or a value has the wrong type.
        """
        inner = definition.get("function", definition)
        if not isinstance(inner, Mapping):
            raise InvalidParameterError(f"function must be a dictionary, got {shown(inner)}")
        # What only one service knows ("strict", "cache_control") is no part of the definition.
        given = {k: v for k, v in inner.items() if k not in ("type", "strict", "cache_control")}
        if "input_schema" in given:
            given["parameters"] = given.pop("input_schema")
        return from_mapping(cls, given, "tool")


class Timeouts(Data, frozen=True, kw_only=True):
    """How long each phase of a request may take, in seconds.

    None means "not given here" (the next outer level decides); ``float("inf")`` means no limit.

    Attributes:
        connect_s: opening the connection, TLS included.
        first_token_s: from sending until the first piece of the answer, retries included.
        idle_s: silence: nothing arrives any more, not even a sign of life.
        content_idle_s: no piece of the answer arrives, whatever signs of life do; a model that
            thinks for long without showing it needs more of this than of ``idle_s``.
        total_s: the whole request, retries included.
    """

    connect_s: float | None = None
    first_token_s: float | None = None
    idle_s: float | None = None
    content_idle_s: float | None = None
    total_s: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_optional_number(f"timeouts.{name}", getattr(self, name), above=0)


class Retries(Data, frozen=True, kw_only=True):
    """How a failed request is repeated.  None means "not given here".

    Attributes:
        attempts: number of tries, the first one included; 1 switches retries off.
        wait_s: upper bound of the wait before the second try, in seconds; it doubles each time.
        wait_max_s: upper bound of any wait that we choose, in seconds.
        retry_after_max_s: the longest wait asked for by the provider that is waited for, in
            seconds; a longer one ends the request at once with the error.
    """

    attempts: int | None = None
    wait_s: float | None = None
    wait_max_s: float | None = None
    retry_after_max_s: float | None = None

    def __post_init__(self) -> None:
        check_optional_number("retries.attempts", self.attempts, low=1, whole=True)
        for name in ("wait_s", "wait_max_s", "retry_after_max_s"):
            check_optional_number(f"retries.{name}", getattr(self, name), low=0)


class LLMRequestOptions(Data, frozen=True, kw_only=True):
    """How to answer.  None always means "not given": the provider's or model's default applies.

    Attributes:
        temperature: 0 to 2.
        max_tokens: upper bound of tokens in the answer.
        top_p: 0 to 1.
        presence_penalty: -2 to 2.
        frequency_penalty: -2 to 2.
        stop: texts that end the answer; they are not part of it.
        seed: for repeatable answers, where the provider can.
        tools: what the model may ask to call.
        tool_choice: ``auto``, ``none``, ``required``, or the name of the tool to call.
        parallel_tool_calls: whether the model may ask for several calls in one answer.
        response_format: ``text``, ``json_object``, or what the answer must follow: a JSON Schema,
            a dataclass, a `msgspec.Struct` or a pydantic model (kept as its JSON Schema).
        reasoning_effort: how long a reasoning model shall think.
        timeouts: for this request; what is not given comes from the provider.
        retries: for this request; what is not given comes from the provider.
        prompt_cache: keep the whole prompt in the service's prompt cache for so long, where the
            service wants to be told; see `LLMMessage.cache` for a part of it.
        priority: which requests a queue takes first; ``interactive`` before ``normal`` before
            ``background``.
        supersede_key: a new request ends the provider's running one with the same key, which
            raises `RequestCancelledError`; for an editor, where each keystroke asks anew.
        force: send it even while the circuit is open or the provider asked us to wait.
        conversation_id: which conversation it belongs to, for budgets, traces and logs; the
            service is not told.
        response_cache: for providers with a cache of answers: ``use`` it even though the answer
            may differ each time, ``refresh`` it with a new answer, or turn it ``off``.
        include_raw: keep the provider's own answer in `LLMResponse.raw`.
        extra: merged into the request body as it is, for what this library does not know.

    Raises:
        InvalidParameterError: a value is out of range; the text names it and the range.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] | str | None = None
    seed: int | None = None
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    response_format: Any = None
    reasoning_effort: ReasoningEffort | None = None
    timeouts: Timeouts | None = None
    retries: Retries | None = None
    prompt_cache: PromptCache | None = None
    priority: Priority | None = None
    supersede_key: str | None = None
    force: bool = False
    conversation_id: str | None = None
    response_cache: ResponseCache | None = None
    include_raw: bool = False
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, bounds in _BOUNDS:
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, **bounds)
        if self.stop is not None:
            stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
            if not all(isinstance(s, str) and s for s in stop):
                raise InvalidParameterError(f"stop must be non-empty texts, got {shown(stop)}")
            msgspec.structs.force_setattr(self, "stop", stop)
        msgspec.structs.force_setattr(self, "tools", tuple(self.tools))
        for tool in self.tools:
            if not isinstance(tool, ToolDefinition):
                raise InvalidParameterError(f"tools must be ToolDefinition, got {shown(tool)}")
        names = [t.name for t in self.tools]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise InvalidParameterError(f"two tools are called {twice[0]!r}")
        if self.tool_choice not in (None, "auto", "none", *names) and not (
            self.tool_choice == "required" and names
        ):
            raise InvalidParameterError(
                f"tool_choice {self.tool_choice!r} is neither auto, none, required nor a given "
                f"tool ({', '.join(names) or 'no tools given'})"
            )
        check_choice("reasoning_effort", self.reasoning_effort, _EFFORTS)
        check_choice("prompt_cache", self.prompt_cache, _PROMPT_CACHES)
        check_choice("priority", self.priority, _PRIORITIES)
        check_choice("response_cache", self.response_cache, _RESPONSE_CACHES)
        wanted = self.response_format
        if isinstance(wanted, str) and wanted not in ("text", "json_object"):
            raise InvalidParameterError(
                "response_format must be 'text', 'json_object', a JSON Schema or a type, "
                f"got {wanted!r}"
            )
        if not isinstance(wanted, str | dict | None):
            msgspec.structs.force_setattr(self, "response_format", schema_of(wanted))

    def merged_over(self, defaults: LLMRequestOptions) -> LLMRequestOptions:
        """These options, with what they leave open taken from ``defaults``."""
        return merged(self, defaults)


NO_OPTIONS = LLMRequestOptions()


def as_options(options: LLMRequestOptions | Mapping[str, Any] | None) -> LLMRequestOptions:
    """Options from what a caller may write: nothing, the type, or a dictionary.

    Raises:
        InvalidParameterError: unknown key, wrong type or value out of range.
    """
    if options is None:
        return NO_OPTIONS
    if isinstance(options, LLMRequestOptions):
        return options
    return from_mapping(LLMRequestOptions, options, "options")


Operation: TypeAlias = Literal["chat", "completion", "fim", "embed"]


class LLMRequest(Data, frozen=True, kw_only=True):
    """One request on its way through the policies to the wire.

    Attributes:
        id: our id; events, errors and the response carry it.
        model: the provider's name of the model.
        messages: the conversation, at least one message; empty for ``fim`` and ``embed``.
        prefix, suffix: operation ``fim``: the text before and after the place to fill.
        texts: operation ``embed``: what to embed.
        options: completed from all defaults.
        operation: ``chat`` or ``completion``, which are both sent as a conversation, ``fim`` (fill
            in the middle) or ``embed``.
        stream: whether the provider is asked to answer piece by piece.
        parent_id: the request of another provider that this one is a part of, or None.
    """

    id: str
    model: str
    messages: tuple[LLMMessage, ...] = ()
    prefix: str = ""
    suffix: str = ""
    texts: tuple[str, ...] = ()
    options: LLMRequestOptions = NO_OPTIONS
    operation: Operation = "chat"
    stream: bool = True
    parent_id: str | None = None

    @property
    def private_texts(self) -> Iterator[str]:
        """What the user has written; it is for the service alone."""
        yield from (self.prefix, self.suffix, *self.texts)
        for message in self.messages:
            yield message.text
            yield from (call.arguments_json for call in message.tool_calls)
