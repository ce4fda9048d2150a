"""Reads the answer to ``GET /models``, for which every server has fields of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..messages import Capability, LLMModelInfo, ModelPrice
from .failures import read_json, unreadable
from .loose import field, first_number, text, whole_number

# Where the servers put the context window, the most exact place first: what a local server has
# loaded is less than what the model could read.
_CONTEXT_WINDOW = (
    "loaded_context_length",
    "context_length",
    "context_window",
    "max_context_length",
    "max_model_len",
    "context_size",
    ("meta", "n_ctx"),
    ("meta", "n_ctx_train"),
    "inputTokenLimit",
    "input_token_limit",
    "max_input_tokens",
    ("top_provider", "context_length"),
    ("metadata", "context_length"),
)
_MAX_OUTPUT = (
    "max_output_tokens",
    "max_completion_tokens",
    "outputTokenLimit",
    "output_token_limit",
    ("top_provider", "max_completion_tokens"),
    ("metadata", "max_tokens"),
)
_WORDS_FOR: dict[Capability, tuple[str, ...]] = {
    "tools": ("tools", "tool_use", "tool_calling", "function_calling"),
    "vision": ("vision", "image", "image_input"),
    "reasoning": ("reasoning", "reasoning_effort", "thinking"),
    "json_object": ("response_format", "json_mode", "json_object"),
    "json_schema": ("structured_outputs", "structured_output", "json_schema"),
    "files": ("file", "pdf", "pdf_input"),
    "audio": ("audio", "audio_input"),
    "fim": ("fim", "completion_fim"),
}


def decode_models(data: bytes, provider_id: str) -> list[LLMModelInfo]:
    """The models in the answer to ``GET /models``, each once, in the server's order.

    Understood are ``{"data": [...]}``, ``{"models": [...]}`` and a bare list.  All facts have the
    source ``endpoint``; what the server does not say is None.

    Raises:
        InvalidResponseError: it is no list of models.
        ProviderError: it is an error object.
    """
    answer = read_json(data, "a list of models")
    candidates = (answer, field(answer, "data"), field(answer, "models"))
    entries = next((c for c in candidates if isinstance(c, list)), None)
    if entries is None:
        raise unreadable(data, "a list of models", why="neither data nor models is a list")
    models: dict[str, LLMModelInfo] = {}
    for entry in entries:
        id = _first_text(entry, "id", "model", "name")
        if id:
            models.setdefault(id, _model(id, entry, provider_id))
    return list(models.values())


def _model(id: str, entry: Mapping[str, Any], provider_id: str) -> LLMModelInfo:
    modalities = _modalities(entry)
    state = text(entry.get("state"))
    return LLMModelInfo.known(
        "endpoint",
        id=id,
        name=_first_text(entry, "display_name", "displayName", "name") or id,
        provider_id=provider_id,
        context_window_tokens=_context_window(entry),
        max_output_tokens=_max_output(entry),
        capabilities=_capabilities(entry, modalities),
        input_modalities=modalities,
        size_bytes=first_number(entry, ("meta", "size")) or None,
        quantization=text(entry.get("quantization")) or None,
        loaded=state == "loaded" if state else None,
        deprecated=_deprecated(entry),
        price=_price(entry.get("pricing")),
    )


def _first_text(entry: object, *names: str) -> str:
    return next((found for name in names if (found := text(field(entry, name)))), "")


def _context_window(entry: Mapping[str, Any]) -> int | None:
    size = first_number(entry, *_CONTEXT_WINDOW)
    backends = entry.get("providers")
    if not size and isinstance(backends, list):
        # A router picks the backend: only the smallest window can be relied on.
        sizes = (whole_number(field(backend, "context_length")) for backend in backends)
        size = min((size for size in sizes if size), default=0)
    return size or None


def _max_output(entry: Mapping[str, Any]) -> int | None:
    size = first_number(entry, *_MAX_OUTPUT)
    if not size and first_number(entry, *_CONTEXT_WINDOW):
        # Next to a context window, this cannot be the window itself.
        size = first_number(entry, "max_tokens")
    return size or None


def _modalities(entry: Mapping[str, Any]) -> frozenset[str] | None:
    for given in (entry.get("input_modalities"), field(entry, "architecture", "input_modalities")):
        if isinstance(given, list) and given:
            return frozenset(filter(None, map(text, given)))
    return None


def _capabilities(
    entry: Mapping[str, Any], modalities: frozenset[str] | None
) -> frozenset[Capability] | None:
    """What the model can do, if the server tells enough of it.

    A request is refused when the model lacks a capability, so half a statement would make a
    refusal out of silence: unless tools, vision and reasoning are all spoken of, nothing is known.
    """
    if text(entry.get("type")).startswith("embedding"):
        return frozenset({"embeddings"})
    spoken: dict[str, bool] = {}
    for modality in ("image", "file", "audio"):
        if modalities is not None:
            spoken[modality] = modality in modalities
    parameters = entry.get("supported_parameters")
    if isinstance(parameters, list):
        # A list of all parameters: what is not in it is not supported.
        spoken |= dict.fromkeys(("tools", "reasoning"), False)
        spoken |= dict.fromkeys(map(text, parameters), True)
    stated = entry.get("capabilities")
    for word, able in stated.items() if isinstance(stated, dict) else ():
        spoken[word] = (able.get("supported") if isinstance(able, dict) else able) is True
    known = {
        capability: any(spoken.get(word) for word in words)
        for capability, words in _WORDS_FOR.items()
        if any(word in spoken for word in words)
    }
    if not {"tools", "vision", "reasoning"} <= known.keys():
        return None
    able_to = {capability for capability, able in known.items() if able}
    return frozenset({*able_to, "chat", "completion"})


def _deprecated(entry: Mapping[str, Any]) -> bool | None:
    if entry.get("archived") is True or entry.get("active") is False:
        return True
    for name in ("deprecated", "deprecation", "deprecated_at", "deprecation_date"):
        if name in entry:
            return bool(entry[name])
    return None


def _price(pricing: object) -> ModelPrice | None:
    """Prices per million tokens; the fields ``prompt`` and ``completion`` are per token."""
    price = ModelPrice(
        input_usd=_per_million(field(pricing, "prompt")),
        output_usd=_per_million(field(pricing, "completion")),
        cached_input_usd=_per_million(field(pricing, "input_cache_read")),
    )
    return None if price.input_usd is None and price.output_usd is None else price


def _per_million(per_token: object) -> float | None:
    if isinstance(per_token, bool) or not isinstance(per_token, str | int | float):
        return None
    try:
        price = float(per_token) * 1_000_000
    except (ValueError, OverflowError):
        return None
    # -1 stands for "depends on the model that is chosen".
    return round(price, 9) if 0 <= price < 1e9 else None
