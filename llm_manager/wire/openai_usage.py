"""Reads token counts of the OpenAI dialects, whatever a server calls them."""

from __future__ import annotations

from ..messages import Usage
from .loose import first_number


def usage_of(given: object) -> Usage | None:
    """The token counts, or None if there are none."""
    if not isinstance(given, dict):
        return None
    prompt = first_number(given, "prompt_tokens", "input_tokens")
    completion = first_number(given, "completion_tokens", "output_tokens")
    if not prompt and not completion:
        return None
    cached = first_number(
        given,
        ("prompt_tokens_details", "cached_tokens"),
        ("input_tokens_details", "cached_tokens"),
        "prompt_cache_hit_tokens",
        "cached_tokens",
    )
    written = first_number(
        given,
        ("prompt_tokens_details", "cache_write_tokens"),
        ("input_tokens_details", "cache_write_tokens"),
    )
    reasoning = first_number(
        given,
        ("completion_tokens_details", "reasoning_tokens"),
        ("output_tokens_details", "reasoning_tokens"),
        "reasoning_tokens",
    )
    if reasoning and first_number(given, "total_tokens") == prompt + completion + reasoning:
        # This server counts reasoning apart from the answer; in `Usage` it is a part of it.
        completion += reasoning
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )
