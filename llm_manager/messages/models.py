"""What is known about models."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import msgspec

from ..checks import check_choice
from .data import Data

Capability: TypeAlias = Literal[
    "chat", "completion", "tools", "vision", "files", "reasoning", "json_object", "json_schema",
    "embeddings", "fim", "audio",
]  # fmt: skip


class ModelPrice(Data, frozen=True, kw_only=True):
    """Price in US dollars per million tokens; None where unknown."""

    input_usd: float | None = None
    output_usd: float | None = None
    cached_input_usd: float | None = None


class LLMModelInfo(Data, frozen=True, kw_only=True, omit_defaults=True):
    """What is known about a model.  None means unknown, never "no".

    Attributes:
        id: name to use in requests.
        name: name to show to people; the id if there is no other.
        provider_id: the provider that offers it.
        context_window_tokens: how many tokens prompt and answer may have together.
        max_output_tokens: how many tokens an answer may have.
        capabilities: what it can do, or None if the provider does not say.
        input_modalities: ``text``, ``image``, ``audio``, ``file``, or None if unknown.
        size_bytes: size on disk of a local model.
        parameters: number of parameters as people write it, e.g. ``"8B"``.
        quantization: e.g. ``"Q4_K_M"``.
        loaded: whether a local model is in memory now.
        deprecated: whether the provider will withdraw it.
        price: what it costs.
        sources: for each known field, as ``(field, source)``, where the fact comes from:
            ``endpoint``, ``registry``, ``user`` or ``guess``.
    """

    id: str
    name: str = ""
    provider_id: str = ""
    context_window_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[Capability] | None = None
    input_modalities: frozenset[str] | None = None
    size_bytes: int | None = None
    parameters: str | None = None
    quantization: str | None = None
    loaded: bool | None = None
    deprecated: bool | None = None
    price: ModelPrice | None = None
    sources: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.id)

    @classmethod
    def known(cls, source: str, **facts: Any) -> LLMModelInfo:
        """A model whose given facts all come from ``source``; facts that are None are left out."""
        given = {field: fact for field, fact in facts.items() if fact is not None}
        named = tuple((f, source) for f in given if f not in ("id", "name", "provider_id"))
        return cls(**given, sources=named)

    def source_of(self, field: str) -> str | None:
        """Where the value of ``field`` comes from, or None if it is not known."""
        return dict(self.sources).get(field)


class CapabilityFact(Data, frozen=True, kw_only=True):
    """Whether something can be done, and who says so.

    Attributes:
        supported: None means unknown.
        source: ``endpoint`` (the service says it), ``registry`` (this library knows it),
            ``emulated`` (this library does it in the service's stead), ``user``, ``guess``, or
            ``unknown``.
    """

    supported: bool | None
    source: str


class LLMCapabilities(Data, frozen=True, kw_only=True):
    """What a provider, or one of its models, can do.

    Attributes:
        provider_id: which provider.
        model: which of its models; None: what the provider can do at most.
        features: one fact for every `Capability`.
        context_window_tokens, max_output_tokens: limits of the model; None where unknown.
        input_modalities: ``text``, ``image``, ``audio``, ``file``, or None if unknown.
        sources: for each known limit, as ``(field, source)``, where it comes from.
    """

    provider_id: str
    model: str | None = None
    features: dict[str, CapabilityFact] = msgspec.field(default_factory=dict)
    context_window_tokens: int | None = None
    max_output_tokens: int | None = None
    input_modalities: frozenset[str] | None = None
    sources: tuple[tuple[str, str], ...] = ()

    def supports(self, capability: Capability) -> bool | None:
        """Whether it can do this; None if nobody knows.

        Raises:
            InvalidParameterError: there is no such capability.
        """
        check_choice("capability", capability, get_args(Capability))
        fact = self.features.get(capability)
        return None if fact is None else fact.supported
