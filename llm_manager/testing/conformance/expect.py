"""How a check says that a provider is not what it should be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import LLMError


class ConformanceError(AssertionError):
    """The provider does something else than the contract of providers says."""


def expect(holds: object, otherwise: str) -> None:
    """Go on if ``holds``.

    Raises:
        ConformanceError: with the text ``otherwise``.
    """
    __tracebackhide__ = True
    if not holds:
        raise ConformanceError(otherwise)


class Caught:
    """The error that `raises` has caught."""

    error: LLMError


@contextmanager
def raises(kind: type[LLMError] | tuple[type[LLMError], ...], when: str) -> Iterator[Caught]:
    """Expect an error of one of these classes from the block.

    Args:
        kind: the class, or several.
        when: the situation, for the failure's text, e.g. ``"the server answers 401"``.
    """
    __tracebackhide__ = True
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = " or ".join(each.__name__ for each in kinds)
    caught = Caught()
    try:
        yield caught
    except LLMError as error:
        caught.error = error
    except ConformanceError:
        raise
    except Exception as error:  # which should not get out is what is being told
        raise ConformanceError(
            f"when {when}, it should raise {names}, but {error!r} gets out"
        ) from error
    else:
        raise ConformanceError(f"when {when}, it should raise {names}, and nothing is raised")
    if not isinstance(caught.error, kinds):
        raise ConformanceError(
            f"when {when}, it should raise {names}, but it raises {caught.error!r}"
        )
