"""What a model wrote, as values: JSON found in its text, and checked against a type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ..errors import InvalidResponseError
from .kinds import shown
from .values import converted, model_from_json, reason_of

if TYPE_CHECKING:
    from ..messages import LLMResponse

P = TypeVar("P")
# Compiled when first used, for most programs ask for no values.
_FENCED = r"^[ \t]*```[\w-]*[ \t]*\n(.*?)^[ \t]*```"


def parsed(text: str, kind: type[P], partial: LLMResponse | None = None) -> P:
    """The JSON text as a value of ``kind``.

    A Markdown fence and words around the JSON are taken off if there is no doubt which part is
    meant (see `json_in`).  A null where ``kind`` takes none counts as left out: that is how
    services with strict schemas leave something out.

    Raises:
        InvalidResponseError: it is not JSON, or does not fit; the text names the place.
    """
    try:
        found = json_in(text)
        if hasattr(kind, "model_validate_json"):
            model: P = model_from_json(found, kind)
            return model
        return converted(msgspec.json.decode(found), kind)
    except (ValueError, RecursionError) as error:
        reason = reason_of(error)
    raise InvalidResponseError(
        f"the answer is no {shown(kind)}: {reason}",
        code="schema_mismatch",
        hint="it was cut off: raise max_tokens"
        if partial is not None and partial.finish_reason == "length"
        else None,
        partial=partial,
    )


def json_in(text: str) -> str:
    """The JSON in ``text``: all of it, or the one JSON object or array in a fence or among words.

    Nothing is guessed: with two candidates, or with broken JSON, there is none.

    Raises:
        ValueError: there is no JSON, or it is not clear which part is meant.
        RecursionError: it is nested too deeply.
    """
    first: ValueError | None = None
    for candidate in _candidates(text):
        try:
            msgspec.json.decode(candidate, type=msgspec.Raw)
            return candidate.strip()
        except ValueError as error:
            first = first or error
    raise ValueError(f"no JSON: {first}" if text.strip() else "no JSON: the text is empty")


def _candidates(text: str) -> Iterator[str]:
    """What may be the JSON of ``text``, the surest first."""
    yield text
    fenced = re.findall(_FENCED, text, re.MULTILINE | re.DOTALL)
    if len(fenced) == 1:
        yield fenced[0]
    elif not fenced:
        begins = [place for bracket in "{[" if (place := text.find(bracket)) >= 0]
        ends = max(text.rfind("}"), text.rfind("]"))
        if begins and ends > 0:
            yield text[min(begins) : ends + 1]
