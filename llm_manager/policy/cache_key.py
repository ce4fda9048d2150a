"""The key of an answer in a cache: equal for requests that must have the same answer.

It holds what is said to the model and what changes its answer; it does not hold how the request is
sent (time limits, retries, priority, ids).  It is a hash, from which nobody reads a prompt.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any

import msgspec

from ..messages import FilePart, ImagePart, LLMMessage, LLMRequest, Part, TextPart
from . import Host

# What is kept under a key of another version is never found.  Raise it when keys or answers change.
FORMAT = 2
# Hashing more than this is felt on an event loop; it is done in a thread.
_MANY_BYTES = 1_000_000

_encoder = msgspec.json.Encoder(order="deterministic")


async def cache_key(request: LLMRequest, host: Host) -> str | None:
    """The key of the answer to ``request``; None if it holds what cannot be compared.

    It is 64 hexadecimal digits.
    """
    place = (host.kind, host.status.provider_id, host.address, host.settings)
    if _content_size(request) > _MANY_BYTES:
        return await asyncio.to_thread(_key, request, place)
    return _key(request, place)


def _key(request: LLMRequest, place: tuple[str, ...]) -> str | None:
    options = request.options
    described = (
        FORMAT,
        place,
        request.model,
        request.operation,
        [_described(message) for message in request.messages],
        (request.prefix, request.suffix, request.texts),
        [
            None if number is None else number + 0.0  # 0 and 0.0 are the same
            for number in (
                options.temperature,
                options.top_p,
                options.presence_penalty,
                options.frequency_penalty,
            )
        ],
        (options.max_tokens, options.stop, options.seed, options.reasoning_effort),
        (options.tools, options.tool_choice, options.parallel_tool_calls),
        (options.response_format, options.include_raw, options.extra),
    )
    try:
        encoded = _encoder.encode(described)
    except (TypeError, ValueError, RecursionError):  # what is not JSON can stand in `extra`
        return None
    return sha256(encoded).hexdigest()


def _described(message: LLMMessage) -> tuple[Any, ...]:
    """A message as it is compared: what it asks the service to cache does not matter."""
    content = message.content
    if not isinstance(content, str):
        content = [_part(part) for part in content]  # type: ignore[assignment]
    return (
        message.role,
        content,
        message.name,
        message.tool_calls,
        message.tool_call_id,
        message.reasoning,
    )


def _part(part: Any) -> Any:
    data = getattr(part, "data", None)
    if not isinstance(data, bytes):
        return part
    return (msgspec.structs.replace(part, data=b"-"), sha256(data).hexdigest())


def _content_size(request: LLMRequest) -> int:
    """About how many bytes there are to be hashed, of what may be large."""
    size = len(request.prefix) + len(request.suffix) + sum(map(len, request.texts))
    for message in request.messages:
        if isinstance(message.content, str):
            size += len(message.content)
        else:
            size += sum(_part_size(part) for part in message.content)
    return size


def _part_size(part: Part) -> int:
    if isinstance(part, ImagePart | FilePart):
        return len(part.data or part.url or "")
    return len(part.text) if isinstance(part, TextPart) else 0
