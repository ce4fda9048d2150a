"""`LLMProviderManager`: the one object of a process that holds its providers.

It finds the provider for a request, passes requests on, and re-emits every provider's events in
one order.  It knows no kind of provider by name and decides nothing about requests.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, TypeVar, overload

import msgspec

from .asking import Asking, Options
from .connection import Wait
from .emitter import EventEmitter
from .errors import (
    InvalidParameterError,
    LLMError,
    ProviderConnectionError,
    ProviderNotFoundError,
)
from .events import (
    ActiveProviderChanged,
    Event,
    ProviderAdded,
    ProviderRemoved,
    RequestFinished,
    StatusChanged,
)
from .messages import (
    Data,
    LLMCapabilities,
    LLMModelInfo,
    LLMRequestOptions,
    Messages,
    Operation,
    TokenCount,
    as_options,
)
from .policy import Stage, as_stages, check_stage
from .provider import BaseLLMProvider
from .registry import create_provider
from .status import LLMProviderStatus
from .stream import LLMStream, StreamCallback
from .subscription import Subscription

AnyProvider = TypeVar("AnyProvider", bound=BaseLLMProvider)


class ProviderSnapshot(Data, frozen=True, kw_only=True):
    """One provider, complete enough to draw a row of a list.

    Attributes:
        id, name, kind: what it is called and what it is.
        status: its snapshot.
        active_model: the model for calls that give none, or None.
        models: the model list as far as it is known.
    """

    id: str
    name: str
    kind: str
    status: LLMProviderStatus
    active_model: str | None = None
    models: tuple[LLMModelInfo, ...] = ()


class ManagerSnapshot(Data, frozen=True, kw_only=True):
    """Everything that a user interface has to know at its start.

    Attributes:
        gseq: number of the last event that this snapshot contains.
        active_provider: id, or None.
        providers: in the order of their registration.
    """

    gseq: int
    active_provider: str | None
    providers: tuple[ProviderSnapshot, ...]


class LLMProviderManager(EventEmitter, Asking):
    """Holds providers, knows the active one, and speaks for all of them.

    Events of its providers are re-emitted under their names, with ``provider_id`` and a running
    number ``gseq`` that has no gaps; `subscribe` first delivers the present status of each.

    Args:
        default_options: for requests that go through this manager; a provider's own come first.
        policies: for providers that this manager creates and that are given none.
    """

    _instance: ClassVar[LLMProviderManager | None] = None
    _instance_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self, *, default_options: Options = None, policies: Iterable[Stage] | None = None
    ) -> None:
        super().__init__()
        self.source_id = "manager"
        self._default_options = as_options(default_options)
        self._policies = None if policies is None else as_stages(policies)
        self._added: tuple[Stage, ...] = ()
        self._providers: dict[str, BaseLLMProvider] = {}
        self._active: str | None = None
        self._removed: set[str] = set()
        self._gseq = 0
        self._last_relayed: dict[str, tuple[Event, Event]] = {}
        self._closed = False

    @classmethod
    def get_instance(cls) -> LLMProviderManager:
        """The manager of this process; made by the first call, from whichever thread it comes."""
        with LLMProviderManager._instance_lock:
            instance = LLMProviderManager._instance
            if instance is None or instance._closed:
                instance = LLMProviderManager._instance = cls()
            return instance

    @classmethod
    def reset_instance(cls) -> None:
        """Forget the manager of this process, for tests; `close` it first if it was used."""
        with LLMProviderManager._instance_lock:
            LLMProviderManager._instance = None

    def __repr__(self) -> str:
        return f"<LLMProviderManager {', '.join(map(repr, self._providers)) or 'empty'}>"

    # ---- which providers there are ---------------------------------------------------------------

    @property
    def providers(self) -> Mapping[str, BaseLLMProvider]:
        """The registered providers by id, in the order of their registration."""
        with self.lock:
            return dict(self._providers)

    def get_provider(self, id: str) -> BaseLLMProvider:
        """The provider of that id.

        Raises:
            ProviderNotFoundError: there is none; the text names similar ones.
        """
        provider = self._providers.get(id)
        if provider is None:
            known = list(self._providers)
            near = get_close_matches(str(id), known, n=1)
            raise ProviderNotFoundError(
                f"no provider {id!r} is registered",
                hint=f"did you mean {near[0]!r}?" if near
                else f"registered are {', '.join(known)}" if known
                else "register one with register_provider()",
            )  # fmt: skip
        return provider

    @overload
    def register_provider(self, provider: AnyProvider, **settings: Any) -> AnyProvider: ...
    @overload
    def register_provider(self, provider: type[AnyProvider], **settings: Any) -> AnyProvider: ...
    @overload
    def register_provider(self, provider: str, **settings: Any) -> BaseLLMProvider: ...
    def register_provider(
        self, provider: BaseLLMProvider | type[BaseLLMProvider] | str, **settings: Any
    ) -> BaseLLMProvider:
        """Add a provider: an object, a class, or the id of a kind, the latter two with settings.

        The first one becomes the active one.

        Returns:
            The provider.

        Raises:
            InvalidParameterError: its id is taken, or it cannot be a provider.
            ProviderNotFoundError: there is no such kind.
            LLMError: the settings are wrong.  Nothing is registered then.
        """
        self._refuse_if_closed()
        if isinstance(provider, BaseLLMProvider):
            if settings:
                raise InvalidParameterError(
                    f"settings ({', '.join(settings)}) can be given with a class or a kind, "
                    "not with an object"
                )
            made = provider
        else:
            if self._policies is not None:
                settings.setdefault("policies", self._policies)
            made = create_provider(provider, **settings)
        # A provider's lock before ours, here as everywhere.
        with made.atomic(), self.atomic():
            if made.id in self._providers:
                raise InvalidParameterError(
                    f"a provider with the id {made.id!r} is registered already",
                    hint="give this one another id=, or unregister the other first",
                )
            if made._relay is not None:
                raise InvalidParameterError(f"{made!r} belongs to another manager already")
            if made.status.status == "closed":
                raise InvalidParameterError(f"{made!r} is closed and cannot be used again")
            self._providers[made.id] = made
            self._removed.discard(made.id)
            made._relay = self._relayed
            for stage in reversed(self._added):
                made.add_policy(stage)
            self.publish(ProviderAdded(provider_id=made.id, status=made.status))
            if self._active is None:
                self._activate(made.id, "first")
            # Who subscribed before gets its first status, as those do who subscribe later.
            for present in made._present(StatusChanged.name):
                self.publish(present)
        return made

    async def unregister_provider(
        self, id: str, *, drain_timeout_s: float = 5.0
    ) -> BaseLLMProvider:
        """Take a provider out and close it; requests that still run get ``drain_timeout_s``.

        If it was the active one, none is active afterwards: no vendor is ever chosen silently.

        Raises:
            ProviderNotFoundError: there is none of that id.
        """
        provider = self.get_provider(id)
        await provider.close(drain_timeout_s)
        with provider.atomic(), self.atomic():
            if self._providers.pop(id, None) is provider:
                provider._relay = None
                for stage in self._added:
                    provider.remove_policy(stage)
                self._last_relayed.pop(id, None)
                if self._active == id:
                    self._activate(None, "removed")
                self._removed.add(id)
                self.publish(ProviderRemoved(provider_id=id))
                if provider._begun:
                    self._hear_out(provider)
        return provider

    def add_policy(self, stage: Stage) -> None:
        """Put a policy around the requests of all providers, those that come later included.

        One that keeps its state in the object, as a budget does, has one state for all of them.
        The one that is added last is the outermost.

        Raises:
            InvalidParameterError: it is no policy.
        """
        check_stage(stage)
        with self.atomic():
            providers, self._added = self.providers, (stage, *self._added)
        for provider in providers.values():
            provider.add_policy(stage)

    def remove_policy(self, stage: Stage) -> None:
        """Take a policy that was added away from all providers."""
        with self.atomic():
            providers, self._added = self.providers, tuple(s for s in self._added if s is not stage)
        for provider in providers.values():
            provider.remove_policy(stage)

    @property
    def active_provider(self) -> BaseLLMProvider | None:
        """The provider for requests that name none."""
        with self.lock:
            return None if self._active is None else self._providers[self._active]

    def set_active_provider(self, id: str | None) -> None:
        """Choose the provider for requests that name none.

        Raises:
            ProviderNotFoundError: there is none of that id.
        """
        if id is not None:
            self.get_provider(id)
        with self.atomic():
            self._activate(id, "user")

    @property
    def active_model(self) -> str | None:
        """The active model of the active provider."""
        provider = self.active_provider
        return None if provider is None else provider.active_model

    def set_active_model(self, model: str) -> None:
        """Choose a model, as ``"model"`` of the active provider or as ``"provider/model"``.

        With a provider's name that provider becomes the active one.

        Raises:
            ProviderNotFoundError: no provider is active.
            ModelNotFoundError: its model list is known and does not have the model.
        """
        provider, chosen = self.resolve(model)
        provider.set_active_model(chosen)
        self.set_active_provider(provider.id)

    def resolve(self, model: str | None) -> tuple[BaseLLMProvider, str | None]:
        """Which provider and which model ``"provider/model"``, ``"model"`` or None stand for.

        What stands before the first slash is a provider's id if one is registered under it;
        otherwise the whole is a model of the active provider, since models may contain slashes.
        What was meant for a provider that has been unregistered is not sent to another, unless that
        one lists a model of exactly this name.

        Raises:
            ProviderNotFoundError: no provider is active, or the one that is named was unregistered.
        """
        if isinstance(model, str) and "/" in model:
            head, tail = model.split("/", 1)
            if head in self._providers:
                return self._providers[head], tail
            if head in self._removed and not self._active_offers(model):
                raise ProviderNotFoundError(
                    f"{head!r} was unregistered, so {model!r} is sent to nobody",
                    hint="register it again, or name another provider",
                )
        provider = self.active_provider
        if provider is None:
            raise ProviderNotFoundError(
                "no provider is active" if model is None or "/" not in model
                else f"no provider {model.split('/', 1)[0]!r} is registered, and none is active",
                hint="register one, or choose one with set_active_provider()",
            )  # fmt: skip
        return provider, model

    def _hear_out(self, provider: BaseLLMProvider) -> None:
        """Tell how requests end that take their time although their provider is gone."""

        subscriptions: list[Subscription] = []

        def heard(event: RequestFinished) -> None:
            self.publish(event)
            close_when_over()

        def close_when_over() -> None:
            while subscriptions and not provider._begun:
                subscriptions.pop().close()

        subscriptions.append(
            provider.subscribe(heard, RequestFinished.name, delivery="inline", watches=False)
        )
        close_when_over()

    def _active_offers(self, model: str) -> bool:
        """Whether the model list of the active provider, as far as it was read, has ``model``."""
        active = self.active_provider
        return active is not None and any(known.id == model for known in active._catalog.models)

    # ---- lifecycle -------------------------------------------------------------------------------

    async def connect_all(self, *, wait: Wait = "attempt") -> dict[str, LLMProviderStatus]:
        """Connect all providers at the same time.

        One that cannot be reached does not fail the others: its status says so.

        Args:
            wait: as for `BaseLLMProvider.connect`; ``none`` returns at once, for an application
                that starts and shows each provider as it comes.

        Returns:
            The status of each provider by id.
        """
        self._refuse_if_closed()
        await asyncio.gather(*(_attempted(p, wait) for p in self.providers.values()))
        return {id: p.status for id, p in self.providers.items()}

    async def disconnect_all(self, drain_timeout_s: float = 5.0) -> None:
        """Disconnect all providers at the same time, within one time limit."""
        await asyncio.gather(*(p.disconnect(drain_timeout_s) for p in self.providers.values()))

    async def close(self, drain_timeout_s: float = 5.0) -> None:
        """Close all providers at the same time; the manager cannot be used again.  Idempotent."""
        self._closed = True
        # Composites first, or they would take their members for lost.
        providers = sorted(self.providers.values(), key=lambda p: not p.is_composite)
        await asyncio.gather(*(p.close(drain_timeout_s) for p in providers))
        await self.flush(synchronous_only=True)

    async def __aenter__(self) -> LLMProviderManager:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def subscribe(self, *args: Any, **how: Any) -> Subscription:
        """Tell a listener the present status of all providers, then every later event.

        See `EventEmitter.subscribe`.
        """
        while True:
            known = self.providers
            with ExitStack() as held:
                # No provider may be between changing and announcing while its state is copied.
                for provider in known.values():
                    held.enter_context(provider.atomic())
                held.enter_context(self.atomic())
                if known == self._providers:  # none has come or gone meanwhile
                    return super().subscribe(*args, **how)

    def publish(self, event: Event) -> bool:
        """Emit an event of the manager's own, with its number."""
        with self.atomic():
            return super().publish(self._numbered(event))

    def snapshot(self) -> ManagerSnapshot:
        """Everything that there is to show, as of event number ``gseq``."""
        with self.lock:
            gseq, active, providers = self._gseq, self._active, list(self._providers.values())
        return ManagerSnapshot(
            gseq=gseq,
            active_provider=active,
            providers=tuple(
                ProviderSnapshot(
                    id=p.id,
                    name=p.name,
                    kind=p.kind,
                    status=p.status,
                    active_model=p.active_model,
                    models=p.known_models,
                )
                for p in providers
            ),
        )

    async def get_available_models(self, *, refresh: bool = False) -> list[LLMModelInfo]:
        """The models of all providers that can be asked; the others are left out.

        Whether one could not be asked shows in its status and in its ``error`` events.
        """
        lists = await asyncio.gather(
            *(_models_of(p, refresh) for p in self.providers.values() if p.status.status.live)
        )
        return [model for models in lists for model in models]

    # ---- asking ----------------------------------------------------------------------------------

    async def count_tokens(
        self, model: str | None, messages: Messages, options: Options = None
    ) -> TokenCount:
        """How many tokens a prompt has; see `BaseLLMProvider.count_tokens`."""
        provider, name = self._for_request(model)
        return await provider.count_tokens(name, messages, self._completed(options, provider))

    def get_capabilities(self, model: str | None = None) -> LLMCapabilities:
        """What a model, given as for `resolve`, or the active provider can do."""
        provider, name = self._for_request(model)
        return provider.get_capabilities(name)

    # ---- inside ----------------------------------------------------------------------------------

    def _stream_for(
        self,
        model: str | None,
        options: Options,
        operation: Operation,
        callback: StreamCallback | None = None,
        **content: Any,
    ) -> LLMStream:
        provider, name = self._for_request(model)
        completed = self._completed(options, provider)
        return provider._stream_for(name, completed, operation, callback, **content)

    def _for_request(self, model: str | None) -> tuple[BaseLLMProvider, str | None]:
        self._refuse_if_closed()
        return self.resolve(model)

    def _completed(self, options: Options, provider: BaseLLMProvider) -> LLMRequestOptions:
        # The manager's defaults are the weakest, so the provider's have to be put in between.
        given = as_options(options)
        return given.merged_over(provider.default_options).merged_over(self._default_options)

    def _activate(self, id: str | None, reason: Literal["first", "user", "removed"]) -> None:
        previous, self._active = self._active, id
        if previous != id:
            self.publish(
                ActiveProviderChanged(
                    provider_id=id or "", previous=previous, current=id, reason=reason
                )
            )

    def _numbered(self, event: Event) -> Event:
        self._gseq += 1
        return msgspec.structs.replace(event, gseq=self._gseq)

    def _relayed(self, name: str, args: tuple[Any, ...], ready: list[Subscription]) -> bool:
        """Re-emit an event of a provider; says whether anybody listens to it here.

        The provider's lock is held; ours is only ever taken after a provider's or alone.
        """
        if not args or not isinstance(args[0], Event):
            return False
        event = args[0]
        with self.lock:
            # A status change comes under two names: one event, under one number.
            original, numbered = self._last_relayed.get(event.provider_id, (None, event))
            if original is not event:
                numbered = self._numbered(event)
                self._last_relayed[event.provider_id] = (event, numbered)
            return self._post(name, (numbered, *args[1:]), {}, ready)

    def _present(self, event: str) -> Iterable[Event]:
        if event == StatusChanged.name:
            for provider in self._providers.values():
                for present in provider._present(event):
                    yield msgspec.structs.replace(present, gseq=self._gseq)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ProviderConnectionError(
                "the manager is closed", code="closed", retryable=False, hint="make a new one"
            )


async def _attempted(provider: BaseLLMProvider, wait: Wait) -> None:
    try:
        await provider.connect(wait=wait)
    except LLMError:
        pass  # said by its status and events; the caller gets the status of each


async def _models_of(provider: BaseLLMProvider, refresh: bool) -> list[LLMModelInfo]:
    try:
        return await provider.get_available_models(refresh=refresh)
    except LLMError:
        return []  # said by its status
