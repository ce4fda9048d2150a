"""What the app and the worker process say to each other: the messages, and how they are framed.

Each message is a length of four bytes and so many bytes of msgpack.  The worker answers a request
under the id that the request carried; what has no id is about the worker itself.
"""

from __future__ import annotations

import struct
from typing import IO, Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from ...errors import InvalidParameterError
from ...messages import Data
from .settings import LoadSettings

T = TypeVar("T")

_LENGTH = struct.Struct(">I")
MESSAGE_LIMIT_BYTES = 256 * 1024 * 1024


class Sampling(Data, frozen=True, kw_only=True, rename="lower"):
    """How tokens are chosen; None leaves it to the model's own settings, else to transformers'.

    Attributes:
        max_tokens: None: as many as the context window has room for.
        stop: texts that end the answer; they are not part of it.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


# ---- from the app --------------------------------------------------------------------------------


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load the model; comes once, before any request.

    Attributes:
        folder: where its files are.
        max_batch: how many requests are computed together at most.
    """

    folder: str
    settings: LoadSettings
    max_batch: int


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked.

    Attributes:
        messages: for the model's chat template, in the shape that transformers' templates expect.
        tools: JSON Schemas of tools for the template.
        thinking: whether a model that can do both shall reason; None leaves it to the template.
        text: what a model without a template is given, where that makes sense; else None.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    thinking: bool | None = None
    text: str | None = None


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Answer a prompt; lower ``rank`` goes first."""

    id: str
    prompt: Prompt
    sampling: Sampling
    rank: int = 1


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Say how many tokens a prompt has."""

    id: str
    prompt: Prompt


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """Make vectors of texts."""

    id: str
    texts: tuple[str, ...]


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Forget a request; nothing more is sent about it."""

    id: str


Command: TypeAlias = Load | Generate | Count | Embed | Cancel


# ---- from the worker -----------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The libraries are imported.

    Attributes:
        versions: of torch and transformers.
        device: what the worker computes on if nobody says otherwise.
    """

    versions: dict[str, str]
    device: str


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """A step on the way to a loaded model; ``fraction`` is 0 to 1, or None when unknown."""

    phase: str
    fraction: float | None = None


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The model is in memory.

    Attributes:
        device, dtype: where it is, and in which number format.
        parameters: how many numbers it has.
    """

    device: str
    dtype: str
    parameters: int


class Began(msgspec.Struct, frozen=True, tag="began"):
    """The prompt has been read.

    Attributes:
        opening: text that the template has begun the answer with, such as ``<think>``.
    """

    id: str
    prompt_tokens: int
    opening: str = ""


class Text(msgspec.Struct, frozen=True, tag="text"):
    """The next piece of an answer."""

    id: str
    text: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """An answer is complete; ``reason`` is ``stop`` or ``length``."""

    id: str
    reason: str
    completion_tokens: int


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """So many tokens."""

    id: str
    tokens: int


class Vectors(msgspec.Struct, frozen=True, tag="vectors"):
    """One vector for each text."""

    id: str
    vectors: list[list[float]]
    tokens: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """It did not work; ``id`` is None for what concerns the whole worker.

    Attributes:
        error: name of the class in `llm_manager.errors`.
    """

    id: str | None
    error: str
    message: str
    code: str | None = None
    hint: str | None = None


Report: TypeAlias = (
    Hello | Progress | Loaded | Began | Text | Done | Counted | Vectors | Failed
)  # fmt: skip

encode = msgspec.msgpack.Encoder().encode


def framed(message: Command | Report) -> bytes:
    """A message as it goes over the pipe.

    Raises:
        InvalidParameterError: a text in it is none, e.g. half of a surrogate pair.
    """
    try:
        body = encode(message)
    except UnicodeEncodeError as error:
        raise InvalidParameterError(f"the request cannot be written as text: {error}") from None
    return _LENGTH.pack(len(body)) + body


def read_message(pipe: IO[bytes], decoder: msgspec.msgpack.Decoder[T]) -> T | None:
    """The next message; blocks.  None at the end of the pipe.

    Raises:
        ValueError: what comes is no message.
    """
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    if size > MESSAGE_LIMIT_BYTES:
        raise ValueError(f"a message of {size} bytes")
    body = pipe.read(size)
    return decoder.decode(body) if len(body) == size else None
