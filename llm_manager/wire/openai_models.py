"""Reads the answer to ``GET /models``, for which every server has fields of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

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
# LM Studio's own words.
_MODALITIES_OF_TYPE = {"llm": frozenset({"text"}), "vlm": frozenset({"text", "image"})}
_WORDS_FOR: dict[Capability, tuple[str, ...]] = {
    "tools": ("tools", "tool_use", "tool_calling", "function_calling"),
    "vision": ("vision", "image", "image_input"),
    "reasoning": ("reasoning", "reasoning_effort", "thinking"),
    "json_object": ("response_format", "json_mode", "json_object"),
    "json_schema": ("structured_outputs", "structured_output", "json_schema", "response_schema"),
    "files": ("file", "pdf", "pdf_input"),
    "audio": ("audio", "audio_input"),
    "fim": ("fim", "completion_fim"),
}


def decode_models(data: bytes, provider_id: str, *, without_prefix: str = "") -> list[LLMModelInfo]:
    """The models in the answer to ``GET /models``, each once, in the server's order.

    Understood are ``{"data": [...]}``, ``{"models": [...]}`` and a bare list.  All facts have the
    source ``endpoint``; what the server does not say is None.

    Args:
        data: the answer.
        provider_id: the provider that it belongs to.
        without_prefix: what is taken off the beginning of the ids.

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
    for entry in map(_flat, entries):
        id = _first_text(entry, "id", "model", "name").removeprefix(without_prefix)
        if id:
            model = _model(id, entry, provider_id)
            models[id] = _smaller(models[id], model) if id in models else model
    return list(models.values())


def with_details(
    models: Iterable[LLMModelInfo], details: Iterable[LLMModelInfo]
) -> list[LLMModelInfo]:
    """``models``, each with the facts of the model of the same id in ``details``; those win."""
    by_id = {model.id: model for model in details}
    return [_merged(model, by_id[model.id]) if model.id in by_id else model for model in models]


def _merged(model: LLMModelInfo, details: LLMModelInfo) -> LLMModelInfo:
    facts = {
        name: value
        for name in model.__struct_fields__
        if name not in ("id", "provider_id", "sources")
        and (value := getattr(details, name)) is not None
    }
    if details.name == details.id:
        del facts["name"]
    sources = {**dict(model.sources), **dict(details.sources)}
    return msgspec.structs.replace(model, **facts, sources=tuple(sources.items()))


def _flat(entry: object) -> dict[str, Any]:
    """An entry of LiteLLM's ``/model/info`` as one of a common list; others as they are."""
    facts = field(entry, "model_info")
    if isinstance(facts, dict):
        return {**facts, "id": field(entry, "model_name")}
    return entry if isinstance(entry, dict) else {}


def _smaller(one: LLMModelInfo, other: LLMModelInfo) -> LLMModelInfo:
    """Of two backends for one name, that with the smaller window: only it can be relied on."""
    sizes = [m.context_window_tokens for m in (one, other)]
    return other if sizes[0] and sizes[1] and sizes[1] < sizes[0] else one


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
        price=_price(entry.get("pricing")) or _price(entry),
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
    return _MODALITIES_OF_TYPE.get(text(entry.get("type")))


def _capabilities(
    entry: Mapping[str, Any], modalities: frozenset[str] | None
) -> frozenset[Capability] | None:
    """What the model can do, if the server tells enough of it.

    A request is refused when the model lacks a capability, so half a statement would make a
    refusal out of silence: unless tools, vision and reasoning are all spoken of, nothing is known.
    """
    kind = text(entry.get("type")) or text(entry.get("mode"))
    methods = entry.get("supportedGenerationMethods")
    methods = methods if isinstance(methods, list) else []
    if kind.startswith("embedding") or (
        "embedContent" in methods and "generateContent" not in methods
    ):
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
    for name, able in entry.items():
        if name.startswith("supports_") and able is not None:
            spoken[name.removeprefix("supports_")] = able is True
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
    """Prices per million tokens; the fields are per token."""
    price = ModelPrice(
        input_usd=_per_million(_first(pricing, "prompt", "input_cost_per_token")),
        output_usd=_per_million(_first(pricing, "completion", "output_cost_per_token")),
        cached_input_usd=_per_million(
            _first(pricing, "input_cache_read", "cache_read_input_token_cost")
        ),
    )
    return None if price.input_usd is None and price.output_usd is None else price


def _first(pricing: object, *names: str) -> object:
    return next((v for name in names if (v := field(pricing, name)) is not None), None)


def _per_million(per_token: object) -> float | None:
    if isinstance(per_token, bool) or not isinstance(per_token, str | int | float):
        return None
    try:
        price = float(per_token) * 1_000_000
    except (ValueError, OverflowError):
        return None
    # -1 stands for "depends on the model that is chosen".
    return round(price, 9) if 0 <= price < 1e9 else None
