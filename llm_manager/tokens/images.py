"""How many tokens a picture costs, by the rule of the service that reads it.

Pure functions of a model's name, the size and the wanted detail; a provider class or a row names
the rule that counts for it (``image_rule``).  What this module must not do: decode a picture.
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..image_headers import Size, picture_size
from ..messages import ImagePart

Detail: TypeAlias = Literal["auto", "low", "high"]

IMAGE_ERROR = 0.1
"""By which part a rule may be wrong; what users measured was within 6 % (see docs/tokens.md)."""

_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]{1,40});base64,")
# More than the largest preview that stands before the size in the header of a photograph.
_HEADER_CHARACTERS = 400_000


@dataclass(frozen=True, slots=True)
class ImageRule:
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
    found = _DATA_URL.match(part.url or "")
    if found is None or part.url is None:
        return None
    packed = part.url[found.end() : found.end() + _HEADER_CHARACTERS].rstrip("=")
    try:
        return picture_size(binascii.a2b_base64(packed[: len(packed) // 4 * 4]), found[1])
    except (binascii.Error, ValueError):
        return None


# ---- OpenAI --------------------------------------------------------------------------------------


def openai_tokens(model: str, size: Size | None, detail: Detail) -> int | None:
    """By OpenAI's guide "Images and vision", section "Calculating costs".

    Older models read tiles: the picture is fitted into 2048 x 2048, then its shorter side into
    768; a base and a price for each tile of 512 x 512 are added up, for low detail the base alone.
    Newer ones read patches of 32 x 32 pixels, of which there may be so many, times a factor of the
    model.  The factors of 1.2 and 1.5 are those that users were billed (OpenAI's forum, "GPT-5.4
    mini and nano"); the guide had others.
    """
    name = model.rpartition("/")[2].removeprefix("ft:")
    for pattern, patches in _PATCHES:
        if pattern.match(name):
            return patches.tokens(size, detail)
    for pattern, base, each in _TILES:
        if pattern.match(name):
            return _tile_tokens(size, detail, base, each)
    return None


@dataclass(frozen=True, slots=True)
class _Patches:
    """How a model reads patches.

    Attributes:
        factor: tokens for each patch.
        high: how many patches there may be at high detail.
        auto: the same where no detail is given; None: a picture is read as it is.
        shrinks: whether low detail is a smaller picture, 512 x 512 at most.
    """

    factor: float
    high: int = 1536
    auto: int | None = 1536
    shrinks: bool = False

    def tokens(self, size: Size | None, detail: Detail) -> int | None:
        if size is None:
            return None
        if detail == "low" and self.shrinks:
            size = _fitted(size, 512)
        limit = self.auto if detail == "auto" else self.high
        return math.ceil(_patches(size, limit) * self.factor)


def _patches(size: Size, limit: int | None) -> int:
    """How many patches of 32 x 32 pixels cover a picture after it was scaled to the limit."""
    width, height = size
    needed = math.ceil(width / 32) * math.ceil(height / 32)
    if limit is None or needed <= limit:
        return needed
    scale = math.sqrt(limit * 32**2 / (width * height))
    # Then once more, so that one side is whole patches.
    across, down = width * scale / 32, height * scale / 32
    scale = min(max(1, math.floor(across)) / across, max(1, math.floor(down)) / down)
    # What is a whole number but for the last digit of a float is not rounded up.
    return math.ceil(across * scale - 1e-6) * math.ceil(down * scale - 1e-6)


def _tile_tokens(size: Size | None, detail: Detail, base: int, each: int) -> int | None:
    if detail == "low":
        return base
    if size is None:
        return None
    width, height = _fitted(size, 2048)
    shrink = min(1.0, 768 / min(width, height))
    across, down = (math.ceil(round(side * shrink) / 512) for side in (width, height))
    return base + each * max(1, across) * max(1, down)


def _fitted(size: Size, side: int) -> Size:
    """``size`` made smaller, if need be, so that no side is longer than ``side``."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _named(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_PATCHES = (
    (_named(r"gpt-5\.[6-9]|gpt-[6-9]"), _Patches(1.2, 2500, None, shrinks=True)),
    (_named(r"gpt-5[.\d]*-nano|gpt-5-nano"), _Patches(1.5)),
    (_named(r"gpt-5[.\d]*-mini"), _Patches(1.2)),
    (_named(r"gpt-5\.5"), _Patches(1.2, 2500, 10_000, shrinks=True)),
    (_named(r"gpt-5\.4"), _Patches(1.2, 2500, 2500, shrinks=True)),
    (_named(r"gpt-5\.[23]"), _Patches(1.2)),
    (_named(r"gpt-4\.1-mini"), _Patches(1.62)),
    (_named(r"gpt-4\.1-nano"), _Patches(2.46)),
    (_named(r"o4-mini|codex-mini"), _Patches(1.72)),
)
_TILES = (
    (_named(r"gpt-5"), 70, 140),
    (_named(r"gpt-4o-mini"), 2833, 5667),
    (_named(r"(chat)?gpt-4o|gpt-4\.[15]|gpt-4-turbo|gpt-4-.*vision"), 85, 170),
    (_named(r"o[13]\b"), 75, 150),
    (_named(r"computer-use"), 65, 129),
)

# ---- Anthropic -----------------------------------------------------------------------------------

_CLAUDE_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2})(?!\d))?", re.IGNORECASE)
_HIGH_RESOLUTION_SINCE = (4, 7)


def anthropic_tokens(model: str, size: Size | None, _detail: Detail) -> int | None:
    """By Anthropic's guide "Vision", sections on resolution and token cost.

    One token for each block of 28 x 28 pixels, which is about width x height / 750.  A picture
    with more than 1568 pixels on a side, or more than 1568 tokens, is scaled down first; from
    Claude 4.7 on, the limits are 2576 pixels and 4784 tokens.
    """
    if size is None:
        return None
    found = _CLAUDE_VERSION.search(model)
    version = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    side, limit = (2576, 4784) if version >= _HIGH_RESOLUTION_SINCE else (1568, 1568)
    # A little more than what has so many blocks, to come down from.
    about = math.sqrt(limit * 28**2 * max(size) / min(size)) + 28
    longest = min(side, max(size), math.ceil(about))
    while (tokens := _blocks(size, longest)) > limit:
        longest -= 1
    return tokens


def _blocks(size: Size, longest: int) -> int:
    width, height = _fitted(size, longest)
    return math.ceil(width / 28) * math.ceil(height / 28)


# ---- Google --------------------------------------------------------------------------------------

_GEMINI_VERSION = re.compile(r"gemini-(\d+)", re.IGNORECASE)


def gemini_tokens(model: str, size: Size | None, _detail: Detail) -> int | None:
    """By Google's guides "Understand and count tokens" and "Media resolution".

    Up to Gemini 2.5, 258 tokens for a picture of 384 pixels or less on each side, and 258 for each
    tile of a larger one; the sides of a tile are the shorter side of the picture divided by 1.5,
    from 256 to 768 pixels.  From Gemini 3 on, 1120 tokens for any picture.
    """
    found = _GEMINI_VERSION.search(model)
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
