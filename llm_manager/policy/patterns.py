"""Which models a policy is for, as patterns such as ``"gpt-4o*"``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate

from ..checks import shown
from ..errors import InvalidParameterError


def model_filter(patterns: str | Iterable[str] | None) -> Callable[[str], object]:
    """Tells of the id of a model whether a pattern fits; without patterns all models do.

    ``*`` stands for any text, ``?`` for one character; upper and lower case differ.

    Raises:
        InvalidParameterError: a pattern is no text, or there is none.
    """
    if patterns is None:
        return _any
    given: tuple[object, ...] = (patterns,)
    if isinstance(patterns, Iterable) and not isinstance(patterns, str | Mapping):
        given = tuple(patterns)
    texts = [pattern for pattern in given if isinstance(pattern, str) and pattern]
    if not given or len(texts) < len(given):
        raise InvalidParameterError(
            f"models must be patterns such as 'gpt-4o*', got {shown(patterns)}"
        )
    return re.compile("|".join(map(translate, texts))).match


def _any(model: str) -> bool:
    return True
