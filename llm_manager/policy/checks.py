"""Settings of policies are looked at when a policy is made, not when it is needed."""

from __future__ import annotations

import math

from ..errors import InvalidParameterError

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
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise InvalidParameterError(f"{name} must be {kind}, got {value!r:.60}")
    if low <= value <= high and value > above:  # which a NaN is not
        return
    bounds = [f"at least {low:g}"] if low > -math.inf else []
    bounds += [f"above {above:g}"] if above > -math.inf else []
    bounds += [f"at most {high:g}"] if high < math.inf else []
    raise InvalidParameterError(f"{name} must be {kind} {' and '.join(bounds)}, got {value!r:.60}")


def check_type(name: str, value: object, kind: type) -> None:
    """Refuse ``value`` unless it is a ``kind``.

    Raises:
        InvalidParameterError: it is not.
    """
    if not isinstance(value, kind):
        raise InvalidParameterError(f"{name} must be {kind.__name__}, got {value!r:.60}")
