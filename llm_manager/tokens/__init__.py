"""How many tokens a prompt has, as well as that can be told without asking anybody.

::

    prompt.py ──> text.py            an estimate by the mix of characters
            ├───> vocabularies.py    exact, where tiktoken's vocabulary lies on this machine
            └───> images.py          by the rule of the service

What is guessed here is marked as an estimate, with its bound, wherever a user sees it.  Estimates
are on the path of requests: they are cheap, load nothing and ask nobody.
"""

from __future__ import annotations

from .images import IMAGE_RULES, ImageRule, ImageRuleName
from .prompt import (
    count_prompt,
    estimate_message_tokens,
    estimate_prompt,
    estimate_prompt_tokens,
    is_long,
)
from .text import estimate_text_tokens
from .vocabularies import OPENAI_VOCABULARIES, Vocabularies, Vocabulary

__all__ = [
    "IMAGE_RULES",
    "OPENAI_VOCABULARIES",
    "ImageRule",
    "ImageRuleName",
    "Vocabularies",
    "Vocabulary",
    "count_prompt",
    "estimate_message_tokens",
    "estimate_prompt",
    "estimate_prompt_tokens",
    "estimate_text_tokens",
    "is_long",
]
