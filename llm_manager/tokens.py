"""Guesses how many tokens something has, for the moments when nobody has counted.

What is guessed here is marked as an estimate wherever a user sees it.
"""

from __future__ import annotations

import math

import msgspec

from .messages import FilePart, ImagePart, LLMMessage, LLMRequest, OpaquePart, TextPart

# Byte-pair vocabularies of today need about four characters of English or code for a token, and
# one and a half of a script beyond ASCII.
_ASCII_CHARACTERS_PER_TOKEN = 4.0
_OTHER_CHARACTERS_PER_TOKEN = 1.5
# What a chat template writes around each message.
_TOKENS_PER_MESSAGE = 4
# A picture of one megapixel costs 765 to 1,600 tokens on the services that say so.
_TOKENS_PER_IMAGE = 1000
_FILE_BYTES_PER_TOKEN = 6


def estimate_text_tokens(text: str) -> int:
    """About how many tokens ``text`` has; usually within a quarter."""
    ascii_count = len(text) if text.isascii() else sum(map(str.isascii, text))
    other_count = len(text) - ascii_count
    return math.ceil(
        ascii_count / _ASCII_CHARACTERS_PER_TOKEN + other_count / _OTHER_CHARACTERS_PER_TOKEN
    )


def estimate_prompt_tokens(request: LLMRequest) -> int:
    """About how many tokens the service reads for ``request``, tool definitions included."""
    tokens = sum(_message_tokens(message) for message in request.messages)
    tokens += sum(map(estimate_text_tokens, (request.prefix, request.suffix, *request.texts)))
    if request.options.tools:
        tokens += estimate_text_tokens(msgspec.json.encode(request.options.tools).decode())
    return tokens


def _message_tokens(message: LLMMessage) -> int:
    tokens = _TOKENS_PER_MESSAGE + estimate_text_tokens(message.text)
    for part in () if isinstance(message.content, str) else message.content:
        tokens += _part_tokens(part)
    for call in message.tool_calls:
        tokens += estimate_text_tokens(call.name) + estimate_text_tokens(call.arguments_json)
    return tokens


def _part_tokens(part: TextPart | ImagePart | FilePart | OpaquePart) -> int:
    match part:
        case ImagePart():
            return _TOKENS_PER_IMAGE
        case FilePart():
            return len(part.data or b"") // _FILE_BYTES_PER_TOKEN
        case OpaquePart():
            return estimate_text_tokens(msgspec.json.encode(part.data).decode())
        case _:
            return 0  # counted with the text of its message
