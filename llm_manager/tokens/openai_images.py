"""How OpenAI's models count the tokens of a picture."""

from __future__ import annotations

import math
import re
from typing import Literal, TypeAlias

import msgspec

from ..image_headers import Size

Detail: TypeAlias = Literal["auto", "low", "high"]


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
        if re.match(pattern, name, re.IGNORECASE):
            return patches.tokens(size, detail)
    for pattern, base, each in _TILES:
        if re.match(pattern, name, re.IGNORECASE):
            return _tile_tokens(size, detail, base, each)
    return None


class _Patches(msgspec.Struct, frozen=True):
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
            size = fitted(size, 512)
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
    width, height = fitted(size, 2048)
    shrink = min(1.0, 768 / min(width, height))
    across, down = (math.ceil(round(side * shrink) / 512) for side in (width, height))
    return base + each * max(1, across) * max(1, down)


def fitted(size: Size, side: int) -> Size:
    """``size`` made smaller, if need be, so that no side is longer than ``side``."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


# By what a model's name begins with; compiled when first used, for most programs send no pictures.
_PATCHES = (
    (r"gpt-5\.[6-9]|gpt-[6-9]", _Patches(1.2, 2500, None, shrinks=True)),
    (r"gpt-5[.\d]*-nano|gpt-5-nano", _Patches(1.5)),
    (r"gpt-5[.\d]*-mini", _Patches(1.2)),
    (r"gpt-5\.5", _Patches(1.2, 2500, 10_000, shrinks=True)),
    (r"gpt-5\.4", _Patches(1.2, 2500, 2500, shrinks=True)),
    (r"gpt-5\.[23]", _Patches(1.2)),
    (r"gpt-4\.1-mini", _Patches(1.62)),
    (r"gpt-4\.1-nano", _Patches(2.46)),
    (r"o4-mini|codex-mini", _Patches(1.72)),
)
_TILES = (
    (r"gpt-5", 70, 140),
    (r"gpt-4o-mini", 2833, 5667),
    (r"(chat)?gpt-4o|gpt-4\.[15]|gpt-4-turbo|gpt-4-.*vision", 85, 170),
    (r"o[13]\b", 75, 150),
    (r"computer-use", 65, 129),
)
