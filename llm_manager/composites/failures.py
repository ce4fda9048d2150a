"""One error out of several: why nobody has answered."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from ..errors import LLMError, RateLimitError, UnsupportedFeatureError
from ..status import is_evidence


def no_answer(
    failures: Sequence[tuple[str, LLMError]],
    composite_id: str,
    *,
    what: str = "no member has answered",
) -> LLMError:
    """The one error that tells why each of several members has not answered.

    It is of the class of the most telling one: of the last that came from a service, rather than
    from one of our own policies, and rather than a feature that is missing.  ``retry_at`` is the
    earliest, and it is retryable if one of them is.

    Args:
        failures: id of the member and its error, in the order in which they were asked; at least
            one.
        composite_id: on whose behalf.
        what: what its text begins with.
    """
    if len(failures) == 1:
        return failures[0][1]
    errors = [error for _, error in failures]
    told = copy(max(enumerate(errors), key=lambda each: (_weight(each[1]), each[0]))[1])
    lines = "; ".join(f"{id}: {error.message or error.code}" for id, error in failures)
    told.message = f"{what}: {lines}"
    told.args = (told.message,)
    told.provider_id = composite_id
    told.request_id = None
    told.retryable = any(error.retryable for error in errors)
    told.retry_at = min((e.retry_at for e in errors if e.retry_at is not None), default=None)
    waits = [e.retry_after_s for e in errors if e.retry_after_s is not None]
    told.retry_after_s = min(waits, default=None)
    told.partial = None
    return told


def _weight(error: LLMError) -> int:
    if isinstance(error, UnsupportedFeatureError):
        return 0
    if not is_evidence(error):
        return 1
    return 2 if isinstance(error, RateLimitError) else 3
