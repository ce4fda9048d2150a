"""How many tokens a picture costs, by the rule of the service that reads it.

Pure functions of a model's name, the size and the wanted detail; a provider class or a row names
the rule that counts for it (``image_rule``).  What this module must not do: decode a picture.
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from ..image_headers import Size, picture_size
from ..messages import ImagePart
from .openai_images import Detail, fitted, openai_tokens

IMAGE_ERROR = 0.1
"""By which part a rule may be wrong; what users measured was within 6 % (see docs/tokens.md)."""

# Patterns are compiled when first used, for most programs send no pictures.
_DATA_URL = r"data:(image/[a-z0-9.+-]{1,40});base64,"
# More than the largest preview that stands before the size in the header of a photograph.
_HEADER_CHARACTERS = 400_000


class ImageRule(msgspec.Struct, frozen=True):
    """How a service counts pictures.

    Attributes:
        tokens: from model, size in pixels (None if it is not known) and detail to the number of
            tokens, or None if that cannot be told.
    """

    tokens: Callable[[str, Size | None, Detail], int | None]

    def tokens_of(self, model: str, part: ImagePart) -> int | None:
        """How many tokens ``part`` costs, or None if that cannot be told."""
        return self.tokens(model, size_of(part), part.detail or "auto")


def size_of(part: ImagePart) -> Size | None:
    """The size of a picture as its header tells; None for one that only the service fetches."""
    if part.data is not None:
        return picture_size(part.data, part.media_type or "")
    found = re.match(_DATA_URL, part.url or "")
    if found is None or part.url is None:
        return None
    packed = part.url[found.end() : found.end() + _HEADER_CHARACTERS].rstrip("=")
    try:
        return picture_size(binascii.a2b_base64(packed[: len(packed) // 4 * 4]), found[1])
    except (binascii.Error, ValueError):
        return None


# ---- Anthropic -----------------------------------------------------------------------------------

_CLAUDE_VERSION = r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2})(?!\d))?"
_HIGH_RESOLUTION_SINCE = (4, 7)


def anthropic_tokens(model: str, size: Size | None, _detail: Detail) -> int | None:
    """By Anthropic's guide "Vision", sections on resolution and token cost.

    One token for each block of 28 x 28 pixels, which is about width x height / 750.  A picture
    with more than 1568 pixels on a side, or more than 1568 tokens, is scaled down first; from
    Claude 4.7 on, the limits are 2576 pixels and 4784 tokens.
    """
    if size is None:
        return None
    found = re.search(_CLAUDE_VERSION, model, re.IGNORECASE)
    version = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    side, limit = (2576, 4784) if version >= _HIGH_RESOLUTION_SINCE else (1568, 1568)
    # A little more than what has so many blocks, to come down from.
    about = math.sqrt(limit * 28**2 * max(size) / min(size)) + 28
    longest = min(side, max(size), math.ceil(about))
    while (tokens := _blocks(size, longest)) > limit:
        longest -= 1
    return tokens


def _blocks(size: Size, longest: int) -> int:
    width, height = fitted(size, longest)
    return math.ceil(width / 28) * math.ceil(height / 28)


# ---- Google --------------------------------------------------------------------------------------

_GEMINI_VERSION = r"gemini-(\d+)"


def gemini_tokens(model: str, size: Size | None, _detail: Detail) -> int | None:
    """By Google's guides "Understand and count tokens" and "Media resolution".

    Up to Gemini 2.5, 258 tokens for a picture of 384 pixels or less on each side, and 258 for each
    tile of a larger one; the sides of a tile are the shorter side of the picture divided by 1.5,
    from 256 to 768 pixels.  From Gemini 3 on, 1120 tokens for any picture.
    """
    found = re.search(_GEMINI_VERSION, model, re.IGNORECASE)
    if found is None:
        return None
    if int(found[1]) >= 3:
        return 1120
    if size is None:
        return None
    width, height = size
    if max(size) <= 384:
        return 258
    side = min(768, max(256, math.floor(min(size) / 1.5)))
    return 258 * math.ceil(width / side) * math.ceil(height / side)


# ---- models that anybody can run -----------------------------------------------------------------


def open_model_tokens(model: str, size: Size | None, _detail: Detail) -> int | None:
    """By the model cards: Gemma 3 has 256 tokens for any picture, LLaVA 1.5 has 576, Qwen-VL one
    for each 28 x 28 pixels (from 4 to 16384), Llama 3.2 Vision 1601 for each tile of 560 x 560, of
    which there are 4 at most (Together AI's "Vision" page); None for the others.
    """
    name = model.lower()
    if "gemma3" in name or "gemma-3" in name:
        return 256
    if "llava" in name and "next" not in name and "1.6" not in name:
        return 576
    if size is None:
        return None
    width, height = size
    if re.search(r"qwen2(\.5)?-?vl", name):
        return min(16_384, max(4, round(width / 28) * round(height / 28)))
    if "llama" in name and "3.2" in name:
        return 1601 * min(2, math.ceil(width / 560)) * min(2, math.ceil(height / 560))
    return None


OPENAI_IMAGES = ImageRule(openai_tokens)
ANTHROPIC_IMAGES = ImageRule(anthropic_tokens)
GEMINI_IMAGES = ImageRule(gemini_tokens)
OPEN_MODEL_IMAGES = ImageRule(open_model_tokens)


def gateway_tokens(model: str, size: Size | None, detail: Detail) -> int | None:
    """By the rule of whoever made the model, as far as its name tells."""
    name = model.lower()
    if "claude" in name:
        return anthropic_tokens(model, size, detail)
    for rule in (gemini_tokens, openai_tokens, open_model_tokens):
        tokens = rule(model, size, detail)
        if tokens is not None:
            return tokens
    return None


ImageRuleName: TypeAlias = Literal["openai", "anthropic", "gemini", "open_models", "by_model"]
IMAGE_RULES: dict[ImageRuleName, ImageRule] = {
    "openai": OPENAI_IMAGES,
    "anthropic": ANTHROPIC_IMAGES,
    "gemini": GEMINI_IMAGES,
    "open_models": OPEN_MODEL_IMAGES,
    "by_model": ImageRule(gateway_tokens),
}
"""The rules by the names that rows use."""
