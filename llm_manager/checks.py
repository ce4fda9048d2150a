"""Checks of single values: what is given by a user is looked at when it is given."""

from __future__ import annotations

import math
from typing import Any

from .errors import InvalidParameterError

# No wait is longer: the calendar ends somewhere.
YEAR_S = 365 * 86_400.0


def check_number(
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    whole: bool = False,
) -> None:
    """Refuse ``value`` unless it is a number from ``low`` to ``high`` and greater than ``above``.

    Raises:
        InvalidParameterError: it is not; the text says what would be.
    """
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        kind = "a whole number" if whole else "a number"
        raise InvalidParameterError(f"{name} must be {kind}, got {shown(value)}")
    if low <= value <= high and value > above:  # which a NaN is not
        return
    raise InvalidParameterError(f"{name} must be {_range(low, high, above)}, got {value!r}")


def check_optional_number(name: str, value: object, **bounds: Any) -> None:
    """`check_number` for what may be left open: None is fine."""
    if value is not None:
        check_number(name, value, **bounds)


def check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    """Refuse ``value`` unless it is None or one of ``choices``.

    Raises:
        InvalidParameterError: it is not.
    """
    if value not in (None, *choices):
        raise InvalidParameterError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_type(name: str, value: object, kind: type) -> None:
    """Refuse ``value`` unless it is a ``kind``.

    Raises:
        InvalidParameterError: it is not.
    """
    if not isinstance(value, kind):
        raise InvalidParameterError(f"{name} must be {kind.__name__}, got {shown(value)}")


def shown(value: object) -> str:
    """A short form of a bad value for an error text."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _range(low: float, high: float, above: float) -> str:
    if above > -math.inf:
        return f"above {above:g}" + (f" and at most {high:g}" if high < math.inf else "")
    if high == math.inf:
        return f"at least {low:g}"
    return f"at most {high:g}" if low == -math.inf else f"between {low:g} and {high:g}"
