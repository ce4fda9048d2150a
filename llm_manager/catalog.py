"""The model list of one provider: cached, read once for all who ask, announced when it differs.

A list that cannot be read again is kept and marked as stale: a passing failure must not empty the
menu of an application.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, get_args

from .emitter import EventEmitter
from .errors import LLMError
from .events import ModelsChanged
from .machine import StatusMachine
from .messages import Capability, CapabilityFact, LLMCapabilities, LLMModelInfo
from .shared import SharedCall

Fetch = Callable[[], Coroutine[Any, Any, Sequence[LLMModelInfo]]]


class ModelCatalog:
    """Holds the models that a provider offers.

    Args:
        fetch: reads the list from the provider.
        emitter, machine: where changes are announced.
        max_age_s: a list older than this is read again when somebody asks, in seconds.
    """

    def __init__(
        self, fetch: Fetch, emitter: EventEmitter, machine: StatusMachine, *, max_age_s: float
    ) -> None:
        self.models: tuple[LLMModelInfo, ...] = ()
        self.fetched_at: datetime | None = None
        self._emitter = emitter
        self._machine = machine
        self._max_age_s = max_age_s
        self._fetched_s: float | None = None
        self._listed: dict[str, LLMModelInfo] = {}
        self._described: dict[str, LLMModelInfo] = {}
        self._refresh: SharedCall[tuple[LLMModelInfo, ...]] = SharedCall(self._read)
        self._fetch = fetch

    @property
    def known(self) -> bool:
        """Whether a list has been read at all."""
        return self._fetched_s is not None

    @property
    def fresh(self) -> bool:
        """Whether the list may be used without reading it again."""
        return (
            self._fetched_s is not None
            and monotonic() - self._fetched_s < self._max_age_s
            and not self._machine.state.models_stale
        )

    async def get(self, *, refresh: bool = False) -> tuple[LLMModelInfo, ...]:
        """The models; read from the provider if the list is too old or ``refresh`` is set.

        Raises:
            LLMError: it cannot be read, and there is no earlier list, or ``refresh`` asked for a
                new one.
        """
        if self.fresh and not refresh:
            return self.models
        try:
            return await self._refresh.join()
        except LLMError:
            if refresh or not self.known:
                raise
            return self.models

    def find(self, model: str) -> LLMModelInfo | None:
        """The model of that id, if the list has it."""
        return next((m for m in self.models if m.id == model), None)

    async def _read(self) -> tuple[LLMModelInfo, ...]:
        try:
            models = await self._fetch()
        except LLMError:
            self.mark_stale()
            raise
        return self.accept(models)

    def accept(self, models: Sequence[LLMModelInfo]) -> tuple[LLMModelInfo, ...]:
        """Take over a list that was read successfully; announce what differs."""
        with self._emitter.atomic():
            listed = {m.id: m for m in models}
            # A model whose entry has not changed keeps what was found out about it since.
            kept = {i: m for i, m in self._described.items() if listed.get(i) == self._listed[i]}
            self._listed, self._described = listed, kept
            self.fetched_at, self._fetched_s = datetime.now(UTC), monotonic()
            self._update(stale=False)
            return self.models

    def describe(self, model: LLMModelInfo) -> None:
        """Put a listed model into the list again, with more facts known about it."""
        with self._emitter.atomic():
            if model.id in self._listed:
                self._described[model.id] = model
                self._update(stale=self._machine.state.models_stale)

    def mark_stale(self) -> None:
        """Reading the list failed: keep the last good one, and say so once."""
        with self._emitter.atomic():
            if self.known:
                self._update(stale=True)

    def _update(self, *, stale: bool) -> None:
        """Publish the list if it differs from what listeners know."""
        before = {m.id: m for m in self.models}
        after = {**self._listed, **self._described}
        self.models = tuple(after.values())
        added = tuple(sorted(after.keys() - before.keys()))
        removed = tuple(sorted(before.keys() - after.keys()))
        changed = tuple(i for i in after if i in before and after[i] != before[i])
        state = self._machine.state
        differs = bool(added or removed or changed)
        if not differs and stale == state.models_stale:
            return
        revision = state.models_revision + differs
        self._machine.measure(models_revision=revision, models_stale=stale)
        self._emitter.publish(
            ModelsChanged(
                provider_id=state.provider_id,
                added=added,
                removed=removed,
                changed=changed,
                models=self.models,
                revision=revision,
                fetched_at=self.fetched_at,
                stale=stale,
            )
        )


def capabilities_of(
    provider_id: str,
    at_most: frozenset[Capability],
    model: str | None,
    known: LLMModelInfo | None,
) -> LLMCapabilities:
    """What a provider that can do ``at_most``, or its model, can do.

    Args:
        provider_id: which provider.
        at_most: what it can do.
        model: which model; None for the provider itself.
        known: what is known about the model, or None.
    """
    of_model = None if known is None else known.capabilities
    source = "unknown" if known is None else known.source_of("capabilities") or "unknown"
    features: dict[str, CapabilityFact] = {}
    for name in get_args(Capability):
        if name not in at_most:
            fact = CapabilityFact(supported=False, source="registry")
        elif model is None:
            fact = CapabilityFact(supported=True, source="registry")
        elif of_model is None:
            fact = CapabilityFact(supported=None, source="unknown")
        else:
            fact = CapabilityFact(supported=name in of_model, source=source)
        if name == "json_schema" and not fact.supported and "chat" in at_most:
            fact = CapabilityFact(supported=True, source="emulated")
        features[name] = fact
    if known is None:
        return LLMCapabilities(provider_id=provider_id, model=model, features=features)
    limits = ("context_window_tokens", "max_output_tokens", "input_modalities")
    return LLMCapabilities(
        provider_id=provider_id,
        model=model,
        features=features,
        context_window_tokens=known.context_window_tokens,
        max_output_tokens=known.max_output_tokens,
        input_modalities=known.input_modalities,
        sources=tuple((field, source) for field, source in known.sources if field in limits),
    )
