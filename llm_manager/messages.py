"""The vocabulary: what goes in, what comes out, what a model is.

Pure data, no I/O.  Every type is an immutable `msgspec.Struct`: Python reads ``snake_case``, JSON
says ``camelCase`` (`to_dict`, `msgspec.json.encode`).  A value that cannot be right is refused when
the object is built, so that nothing later has to check again.

::

    LLMMessage + LLMRequestOptions -> LLMRequest -> Delta ... -> LLMStreamEvent ... -> LLMResponse
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, get_args

import msgspec

from .errors import InvalidParameterError, InvalidResponseError
from .schemas import described, parsed, schema_of

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "other"]
ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "max"]
Capability: TypeAlias = Literal[
    "chat", "completion", "tools", "vision", "files", "reasoning", "json_object", "json_schema",
    "embeddings", "fim", "audio",
]  # fmt: skip
Operation: TypeAlias = Literal["chat", "completion", "fim", "embed"]
PromptCache: TypeAlias = Literal["5m", "1h"]
Priority: TypeAlias = Literal["interactive", "normal", "background"]
ResponseCache: TypeAlias = Literal["use", "refresh", "off"]

T = TypeVar("T", bound="Data")
P = TypeVar("P")


class Data(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all public data types: immutable, compared by value, camelCase as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """This object as JSON-ready dictionaries and lists, with camelCase keys."""
        plain: dict[str, Any] = msgspec.to_builtins(self, str_keys=True, order="deterministic")
        return plain


# ---- messages ------------------------------------------------------------------------------------


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
                f"OpaquePart), got {_shown(self.content)}"
            )
        if self.role == "tool" and not self.tool_call_id:
            raise InvalidParameterError("a message with role 'tool' needs a tool_call_id")
        _check_choice("cache", self.cache, get_args(PromptCache))
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
            f"messages must be text, a message or a sequence of messages, got {_shown(messages)}"
        ) from None
    if not result:
        raise InvalidParameterError("messages is empty; give at least one message")
    if not any(m.content or m.tool_calls for m in result):
        raise InvalidParameterError("every message is empty; give at least one some content")
    return result


def from_mapping(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    """Build a data type from a dictionary with snake_case or camelCase keys.

    Raises:
        InvalidParameterError: a key is unknown (with the nearest known one) or a value has the
            wrong type; the text names the place.
    """
    try:
        return msgspec.convert(_wire_keys(kind, values, what), kind, str_keys=True)
    except InvalidParameterError:
        raise
    except msgspec.ValidationError as error:
        raise InvalidParameterError(f"{what}: {error}") from None


def _wire_keys(kind: type[Data], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``values`` with the keys that JSON has, in nested data too; refuses unknown ones."""
    if not isinstance(values, Mapping):
        raise InvalidParameterError(
            f"{where} must be a {kind.__name__} or a dictionary, got {_shown(values)}"
        )
    fields = {f.name: f for f in msgspec.structs.fields(kind)}
    known = {**fields, **{f.encode_name: f for f in fields.values()}}
    result: dict[str, Any] = {}
    for key, value in values.items():
        if key == kind.__struct_config__.tag_field:
            result[key] = value
            continue
        if key not in known:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(fields)}"
            raise InvalidParameterError(f"unknown key {key!r} in {where}", hint=hint)
        field = known[key]
        result[field.encode_name] = _nested(field.type, value, f"{where}.{field.name}")
    return result


def _nested(annotation: Any, value: Any, where: str) -> Any:
    """``value`` of a field, with the keys of the data in it made those of JSON."""
    if isinstance(value, list | tuple):
        return [_nested(annotation, v, f"{where}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    for kind in _data_types(annotation):
        tag_field, tag = kind.__struct_config__.tag_field, kind.__struct_config__.tag
        if tag_field is None or value.get(tag_field) == tag:
            return _wire_keys(kind, value, where)
    return value


def _data_types(annotation: Any) -> list[type[Data]]:
    if isinstance(annotation, type) and issubclass(annotation, Data):
        return [annotation]
    return [kind for inner in get_args(annotation) for kind in _data_types(inner)]


def _shown(value: object) -> str:
    """A short form of a bad value for an error text."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


# ---- options -------------------------------------------------------------------------------------


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
            raise InvalidParameterError(f"function must be a dictionary, got {_shown(inner)}")
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
            _check_number(f"timeouts.{name}", getattr(self, name), above=0)


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
        _check_number("retries.attempts", self.attempts, low=1, whole=True)
        for name in ("wait_s", "wait_max_s", "retry_after_max_s"):
            _check_number(f"retries.{name}", getattr(self, name), low=0)


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
    extra: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _check_number("temperature", self.temperature, low=0, high=2)
        _check_number("max_tokens", self.max_tokens, low=1, whole=True)
        _check_number("top_p", self.top_p, low=0, high=1)
        _check_number("presence_penalty", self.presence_penalty, low=-2, high=2)
        _check_number("frequency_penalty", self.frequency_penalty, low=-2, high=2)
        _check_number("seed", self.seed, whole=True)
        if self.stop is not None:
            stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
            if not all(isinstance(s, str) and s for s in stop):
                raise InvalidParameterError(f"stop must be non-empty texts, got {_shown(stop)}")
            msgspec.structs.force_setattr(self, "stop", stop)
        msgspec.structs.force_setattr(self, "tools", tuple(self.tools))
        for tool in self.tools:
            if not isinstance(tool, ToolDefinition):
                raise InvalidParameterError(f"tools must be ToolDefinition, got {_shown(tool)}")
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
        _check_choice("reasoning_effort", self.reasoning_effort, get_args(ReasoningEffort))
        _check_choice("prompt_cache", self.prompt_cache, get_args(PromptCache))
        _check_choice("priority", self.priority, get_args(Priority))
        _check_choice("response_cache", self.response_cache, get_args(ResponseCache))
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


def _merge(given: Any, defaults: Any) -> Any:
    """``given`` completed field by field from ``defaults``; nested data is completed too."""
    blank = type(defaults)()
    if given == defaults or defaults == blank:
        return given
    filled: dict[str, Any] = {}
    for name in given.__struct_fields__:
        value, default = getattr(given, name), getattr(defaults, name)
        if isinstance(value, Data) and isinstance(default, Data):
            filled[name] = _merge(value, default)
        elif isinstance(value, dict) and isinstance(default, dict) and name == "extra":
            filled[name] = {**default, **value}
        else:
            filled[name] = default if value == getattr(blank, name) else value
    return type(given)(**filled)


def merged(*levels: T) -> T:
    """Several levels of the same settings in one, the first level being the strongest."""
    result: T = reduce(_merge, levels)
    return result


def _check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value not in (None, *choices):
        raise InvalidParameterError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _check_number(
    name: str,
    value: float | None,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float | None = None,
    whole: bool = False,
) -> None:
    if value is None:
        return
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise InvalidParameterError(f"{name} must be {kind}, got {_shown(value)}")
    if math.isnan(value) or not low <= value <= high or (above is not None and value <= above):
        if above is not None:
            wanted = f"above {above:g}"
        elif high == math.inf:
            wanted = f"at least {low:g}"
        else:
            wanted = f"between {low:g} and {high:g}"
        raise InvalidParameterError(f"{name} must be {wanted}, got {value!r}")


NO_OPTIONS = LLMRequestOptions()


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


# ---- answers -------------------------------------------------------------------------------------


class Usage(Data, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens counted by the provider, with one meaning on all of them.

    Attributes:
        prompt_tokens: all tokens of the input, those read from and written to a cache included.
        completion_tokens: all tokens of the answer, reasoning included.
        cached_tokens: the part of ``prompt_tokens`` that was read from a cache.
        cache_write_tokens: the part of ``prompt_tokens`` that was written to a cache.
        reasoning_tokens: the part of ``completion_tokens`` that was reasoning.
        estimated: True if some of it is our estimate: the answer was broken off before the
            provider had sent its figures.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
        )


class Timings(Data, frozen=True, kw_only=True):
    """How long an answer took, in seconds, measured by us.

    Attributes:
        first_token_s: from the start to the first piece of the answer; None if none came.
        total_s: from the start to the end, retries included.
        attempts: how often the request was sent.
    """

    first_token_s: float | None = None
    total_s: float = 0.0
    attempts: int = 1


class LLMResponse(Data, frozen=True, kw_only=True):
    """A whole answer, or what there is of it.

    Attributes:
        text: the answer's text, without reasoning.
        reasoning: the reasoning text that the provider showed, or ``""``.
        tool_calls: tools that the model asks to call, in its order.
        parts: everything but the tool calls in its order, if there is more than text; else empty.
        finish_reason: why it ended; None while it has not ended.
        provider_finish_reason: the provider's own word for it, or None.
        usage: token counts, or None if the provider sent none.
        model: the model that answered, as the provider names it.
        provider_id: which provider was asked.
        answered_by: which provider answered: the same, or one that it passed the request on to.
        cached: whether it is an earlier answer that was kept; its ``usage`` is the one of then.
        request_id: our id of the request, as in the events.
        response_id: the provider's id of the answer, or None.
        timings: how long it took.
        raw: the provider's own answer, when `LLMRequestOptions.include_raw` was set: the decoded
            JSON documents in the order in which they arrived.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    parts: tuple[Part, ...] = ()
    finish_reason: FinishReason | None = None
    provider_finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    provider_id: str = ""
    answered_by: str = ""
    cached: bool = False
    request_id: str = ""
    response_id: str | None = None
    timings: Timings = Timings()
    raw: tuple[Any, ...] | None = None

    def to_message(self) -> LLMMessage:
        """The answer as the assistant's message, to go on with the conversation."""
        return LLMMessage(
            role="assistant",
            content=self.parts or self.text,
            tool_calls=self.tool_calls,
            reasoning=self.reasoning or None,
        )

    def parse(self, kind: type[P]) -> P:
        """The answer's JSON text as a value of ``kind``: a dataclass, a Struct, a pydantic model,
        or a plain type such as ``dict``.

        Raises:
            InvalidResponseError: the text is not JSON, or does not fit; ``partial`` is this answer.
        """
        return parsed(self.text, kind, self)


class LLMEmbeddings(Data, frozen=True, kw_only=True):
    """Texts as vectors.

    Attributes:
        vectors: one for each text, in their order; all have the same length.
        model: the model that made them, as the provider names it.
        usage: token counts, or None if the provider sent none.
        provider_id: which provider answered.
        request_id: our id of the request, as in the events.
    """

    vectors: tuple[list[float], ...]
    model: str = ""
    usage: Usage | None = None
    provider_id: str = ""
    request_id: str = ""


class TokenCount(Data, frozen=True, kw_only=True):
    """How many tokens a prompt has.

    Attributes:
        tokens: how many.
        estimated: whether this is our estimate; otherwise somebody counted.
        error_fraction: of an estimate: by which part of ``tokens`` it is wrong at most, as far as
            we have seen; e.g. 0.25.  None for a count, and where nothing is known.
        method: who counted: ``provider``, ``tokenizer`` (a local model's own), ``tiktoken``, or
            ``estimate``.
    """

    tokens: int
    estimated: bool = False
    error_fraction: float | None = None
    method: Literal["provider", "tokenizer", "tiktoken", "estimate"] = "provider"


# What decoders produce and policies pass on.  One small object per piece of an answer, built for
# every token: no keyword-only constructor, no garbage collector tracking.


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the answer's text."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the reasoning text."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A piece of a tool call.

    Attributes:
        index: which call of this answer, from 0.
        id: id of the call; empty except in the first piece.
        name: name of the tool; empty except in the first piece.
        arguments: the next piece of the arguments' JSON text.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class UsageDelta(msgspec.Struct, frozen=True, gc=False):
    """Token counts for the whole answer so far; a later one replaces an earlier one."""

    usage: Usage


class FinishDelta(msgspec.Struct, frozen=True, gc=False):
    """The provider says why the answer ended."""

    reason: FinishReason
    provider_reason: str | None = None


class MetaDelta(msgspec.Struct, frozen=True, gc=False):
    """Facts about the answer: the model that gives it and the provider's id of it.

    It comes right before the first other piece, because what it comes with counts as the first
    piece of the answer.

    Attributes:
        model: the model that answers, as the provider names it.
        response_id: the provider's id of the answer.
        provider_id: the provider that answers, where the request was passed on to another one.
        cached: whether this is an earlier answer that was kept.
    """

    model: str | None = None
    response_id: str | None = None
    provider_id: str | None = None
    cached: bool = False


class PartDelta(msgspec.Struct, frozen=True):
    """A piece of the answer that is whole and not text: an image, or an `OpaquePart`."""

    part: Part


class VectorsDelta(msgspec.Struct, frozen=True):
    """The next vectors of an embedding, in the order of the texts."""

    vectors: list[list[float]]


class RawDelta(msgspec.Struct, frozen=True):
    """One decoded JSON document of the provider; only when ``include_raw`` was asked."""

    document: Any


class KeepAliveDelta(Data, frozen=True):
    """A sign of life without content; the clocks see it, readers never do."""


Delta: TypeAlias = (
    TextDelta
    | ReasoningDelta
    | ToolCallDelta
    | PartDelta
    | VectorsDelta
    | UsageDelta
    | FinishDelta
    | MetaDelta
    | RawDelta
    | KeepAliveDelta
)


class LLMStreamEvent(Data, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One event of a running answer.

    Attributes:
        kind: which of the other fields is set.
        index: running number of the event in its stream, from 0.
        text: kinds ``text`` and ``reasoning``: the new piece.
        tool_call: kind ``tool_call``: the new piece of a call.
        part: kind ``part``: a piece that is no text, whole.
        usage: kind ``usage``: token counts so far.
        response: kind ``done``: the whole answer; it is the last event.
    """

    kind: Literal["text", "reasoning", "tool_call", "part", "usage", "done"]
    index: int
    text: str = ""
    tool_call: ToolCallDelta | None = None
    part: Part | None = None
    usage: Usage | None = None
    response: LLMResponse | None = None


# ---- models --------------------------------------------------------------------------------------


class ModelPrice(Data, frozen=True, kw_only=True):
    """Price in US dollars per million tokens; None where unknown."""

    input_usd: float | None = None
    output_usd: float | None = None
    cached_input_usd: float | None = None


class LLMModelInfo(Data, frozen=True, kw_only=True, omit_defaults=True):
    """What is known about a model.  None means unknown, never "no".

    Attributes:
        id: name to use in requests.
        name: name to show to people; the id if there is no other.
        provider_id: the provider that offers it.
        context_window_tokens: how many tokens prompt and answer may have together.
        max_output_tokens: how many tokens an answer may have.
        capabilities: what it can do, or None if the provider does not say.
        input_modalities: ``text``, ``image``, ``audio``, ``file``, or None if unknown.
        size_bytes: size on disk of a local model.
        parameters: number of parameters as people write it, e.g. ``"8B"``.
        quantization: e.g. ``"Q4_K_M"``.
        loaded: whether a local model is in memory now.
        deprecated: whether the provider will withdraw it.
        price: what it costs.
        sources: for each known field, as ``(field, source)``, where the fact comes from:
            ``endpoint``, ``registry``, ``user`` or ``guess``.
    """

    id: str
    name: str = ""
    provider_id: str = ""
    context_window_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[Capability] | None = None
    input_modalities: frozenset[str] | None = None
    size_bytes: int | None = None
    parameters: str | None = None
    quantization: str | None = None
    loaded: bool | None = None
    deprecated: bool | None = None
    price: ModelPrice | None = None
    sources: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.id)

    @classmethod
    def known(cls, source: str, **facts: Any) -> LLMModelInfo:
        """A model whose given facts all come from ``source``; facts that are None are left out."""
        given = {field: fact for field, fact in facts.items() if fact is not None}
        named = tuple((f, source) for f in given if f not in ("id", "name", "provider_id"))
        return cls(**given, sources=named)

    def source_of(self, field: str) -> str | None:
        """Where the value of ``field`` comes from, or None if it is not known."""
        return dict(self.sources).get(field)


class CapabilityFact(Data, frozen=True, kw_only=True):
    """Whether something can be done, and who says so.

    Attributes:
        supported: None means unknown.
        source: ``endpoint`` (the service says it), ``registry`` (this library knows it),
            ``emulated`` (this library does it in the service's stead), ``user``, ``guess``, or
            ``unknown``.
    """

    supported: bool | None
    source: str


class LLMCapabilities(Data, frozen=True, kw_only=True):
    """What a provider, or one of its models, can do.

    Attributes:
        provider_id: which provider.
        model: which of its models; None: what the provider can do at most.
        features: one fact for every `Capability`.
        context_window_tokens, max_output_tokens: limits of the model; None where unknown.
        input_modalities: ``text``, ``image``, ``audio``, ``file``, or None if unknown.
        sources: for each known limit, as ``(field, source)``, where it comes from.
    """

    provider_id: str
    model: str | None = None
    features: dict[str, CapabilityFact] = msgspec.field(default_factory=dict)
    context_window_tokens: int | None = None
    max_output_tokens: int | None = None
    input_modalities: frozenset[str] | None = None
    sources: tuple[tuple[str, str], ...] = ()

    def supports(self, capability: Capability) -> bool | None:
        """Whether it can do this; None if nobody knows.

        Raises:
            InvalidParameterError: there is no such capability.
        """
        _check_choice("capability", capability, get_args(Capability))
        fact = self.features.get(capability)
        return None if fact is None else fact.supported
