"""Reads Anthropic's list of models, and knows what requests each of them takes.

Models differ in how they are told to reason and in whether they take sampling parameters.  The
list says the first; what it does not say, or says of no model because there is no list (other
clouds have none), follows from the version in the model's name.
"""

from __future__ import annotations

import re
from typing import Any

from ..messages import Capability, Data, LLMModelInfo
from .failures import read_json, unreadable
from .loose import field, first_number, text

_WORD_FOR: dict[Capability, str] = {
    "vision": "image_input",
    "files": "pdf_input",
    "reasoning": "thinking",
    "json_schema": "structured_outputs",
}
_MODALITIES = (("vision", "image"), ("files", "file"))
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_THINKING_TYPES = ("adaptive", "enabled", "disabled", "between_tools")
# "claude-opus-4-6", "claude-3-7-sonnet-20250219", "anthropic/claude-sonnet-4.5": a date is no
# version.
_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")


class ModelTraits(Data, frozen=True, kw_only=True):
    """What requests to a model may contain.

    Attributes:
        thinking: the values of ``thinking.type`` that it accepts.
        efforts: the values of ``output_config.effort`` that it accepts; empty: none.
        thinks_unasked: whether it reasons when the request says nothing about it.
        takes_sampling: whether it accepts ``temperature`` and ``top_p``.
        max_output_tokens: the highest ``max_tokens`` that it accepts, or None if unknown.
    """

    thinking: frozenset[str]
    efforts: frozenset[str]
    thinks_unasked: bool = True
    takes_sampling: bool = True
    max_output_tokens: int | None = None


class ModelPage(Data, frozen=True, kw_only=True):
    """One page of the model list.

    Attributes:
        models: the models on it.
        traits: what their requests may contain, by id.
        next_after: id to go on behind for the next page, or None on the last page.
    """

    models: tuple[LLMModelInfo, ...]
    traits: dict[str, ModelTraits]
    next_after: str | None = None


def traits_of_name(model: str) -> ModelTraits:
    """What can be told of a model by its name.

    Up to version 4.5 a budget makes it reason; from 4.6 on it decides itself how much
    (``adaptive``), and takes an effort; from 4.7 on it takes no sampling parameters; from 5 on it
    reasons unless told otherwise.  A name without a version counts as the newest, but for the
    sampling parameters, which are left to the server.

    Source: Anthropic's pages "Thinking", "Effort" and "What's new in Claude Opus 4.7".
    """
    match = _VERSION.search(model.lower())
    version = (int(match[1]), int(match[2] or 0)) if match else None
    if version is not None and version < (4, 6):
        return ModelTraits(
            thinking=frozenset({"enabled", "disabled"}), efforts=frozenset(), thinks_unasked=False
        )
    has_xhigh = version is None or version >= (4, 7)
    return ModelTraits(
        thinking=frozenset({"adaptive", "disabled"}),
        efforts=frozenset(_EFFORTS) - (frozenset() if has_xhigh else {"xhigh"}),
        thinks_unasked=version is None or version >= (5, 0),
        takes_sampling=version is None or version < (4, 7),
    )


def decode_models(data: bytes, provider_id: str) -> ModelPage:
    """One page of the answer to ``GET /v1/models``.

    All facts have the source ``endpoint``; what the server does not say is None.

    Raises:
        InvalidResponseError: it is no list of models.
        ProviderError: it is an error object.
    """
    answer = read_json(data, "a list of models")
    entries = field(answer, "data")
    if not isinstance(entries, list):
        raise unreadable(data, "a list of models", why="data is no list")
    known = {id: entry for entry in entries if (id := text(field(entry, "id")))}
    more = field(answer, "has_more") is True
    return ModelPage(
        models=tuple(_model(id, entry, provider_id) for id, entry in known.items()),
        traits={id: _traits(id, entry) for id, entry in known.items()},
        next_after=(text(field(answer, "last_id")) or None) if more else None,
    )


def _model(id: str, entry: dict[str, Any], provider_id: str) -> LLMModelInfo:
    stated = entry.get("capabilities")
    able = _capabilities(stated) if isinstance(stated, dict) else None
    return LLMModelInfo.known(
        "endpoint",
        id=id,
        name=text(entry.get("display_name")) or id,
        provider_id=provider_id,
        context_window_tokens=first_number(entry, "max_input_tokens") or None,
        max_output_tokens=first_number(entry, "max_tokens") or None,
        capabilities=able,
        input_modalities=None if able is None else _modalities(able),
        deprecated=_deprecated(entry),
    )


def _capabilities(stated: dict[str, Any]) -> frozenset[Capability]:
    # The list does not speak of tools: every model has them.
    able = {c for c, word in _WORD_FOR.items() if field(stated, word, "supported") is True}
    return frozenset({"chat", "completion", "tools", *able})


def _modalities(able: frozenset[Capability]) -> frozenset[str]:
    return frozenset({"text"} | {name for what, name in _MODALITIES if what in able})


def _deprecated(entry: dict[str, Any]) -> bool | None:
    if stage := text(entry.get("lifecycle")):
        return stage != "active"
    return bool(entry["deprecated_at"]) if "deprecated_at" in entry else None


def _traits(id: str, entry: dict[str, Any]) -> ModelTraits:
    named = traits_of_name(id)
    thinking, efforts = named.thinking, named.efforts
    stated = entry.get("capabilities")
    if isinstance(field(stated, "thinking", "types"), dict):
        thinking = _supported(field(stated, "thinking", "types"), _THINKING_TYPES)
    if isinstance(field(stated, "effort"), dict):
        efforts = _supported(field(stated, "effort"), _EFFORTS)
    return ModelTraits(
        thinking=thinking,
        efforts=efforts,
        thinks_unasked=named.thinks_unasked,
        takes_sampling=named.takes_sampling,
        max_output_tokens=first_number(entry, "max_tokens") or None,
    )


def _supported(stated: object, words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(word for word in words if field(stated, word, "supported") is True)
