"""What requests that are no conversation cannot have."""

from __future__ import annotations

from ..errors import UnsupportedFeatureError
from ..messages import LLMRequestOptions


def refuse_chat_options(options: LLMRequestOptions) -> None:
    """Refuse what only a conversation can have; a reasoning effort simply does not matter here.

    Raises:
        UnsupportedFeatureError: tools or a response format are asked for.
    """
    if options.tools or options.response_format not in (None, "text"):
        what = "tools" if options.tools else "response_format"
        raise UnsupportedFeatureError(
            f"filling in the middle knows no {what}", hint="use stream_chat_completion"
        )
