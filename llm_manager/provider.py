"""`BaseLLMProvider`: the public face of a provider, and the one path that all requests take.

::

    generate_* / stream_*  ->  _request (checked)  ->  _ask  ->  policies  ->  _exchange
                                                    events      retry, ...     codec + _send

A provider's author writes `_open`, `_close`, `_send`, `_list_models` and names a codec.  Status,
events, retries, time limits, cancellation and the model cache happen here, once for all.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from abc import abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cache
from inspect import isawaitable
from time import monotonic
from typing import Any, ClassVar, Literal, get_args

import msgspec

from .asking import Asking, Options
from .catalog import ModelCatalog, capabilities_of
from .checks import check_number
from .clock import SYSTEM_CLOCK, Clock
from .config import check_id
from .connection import Connection, Wait
from .emitter import EventEmitter
from .errors import (
    AuthenticationError,
    InvalidParameterError,
    LLMError,
    ModelNotFoundError,
    ProviderError,
    RequestCancelledError,
    UnsupportedFeatureError,
    as_llm_error,
    without_secrets,
)
from .events import (
    Event,
    ModelChanged,
    RequestFinished,
    RequestStarted,
    RetryScheduled,
    StatusChanged,
)
from .interrupt import Interrupter
from .lease import Ticket
from .machine import StatusMachine
from .messages import (
    Capability,
    Delta,
    FilePart,
    ImagePart,
    KeepAliveDelta,
    LLMCapabilities,
    LLMModelInfo,
    LLMRequest,
    LLMRequestOptions,
    Messages,
    MetaDelta,
    Operation,
    Timeouts,
    TokenCount,
    as_messages,
    as_options,
    from_mapping,
    merged,
)
from .policy import Exchange, Stage, as_stages, chain
from .policy.circuit import CircuitBreaker
from .policy.cooldown import CooldownPolicy
from .policy.deadline import DeadlinePolicy
from .policy.limits import ConcurrencyLimit
from .policy.retry import RetryPolicy
from .policy.structured import StructuredOutput
from .probing import QUICK_S
from .reconfiguring import Reconfigurable
from .status import ErrorInfo, LLMProviderStatus, ProviderStatus
from .stream import Assembly, LLMStream, StreamCallback
from .supervisor import Backoff
from .tokens import OPENAI_VOCABULARIES, ImageRule, Vocabularies, count_prompt
from .wire import Codec

_numbers = itertools.count(1)
# How long a burst of an answer may keep the event loop from running anything else, in seconds.
_TURN_S = 0.005


class BaseLLMProvider(Reconfigurable, Asking):
    """One place that answers requests, tells listeners what it is doing, and heals itself.

    Every provider takes these keyword arguments, and its own.

    Args:
        id: the name under which a manager knows it; default: its kind.
        name: the name to show to people; default: the id.
        default_model: used where a call gives no model.
        default_options: used where a call leaves an option open.
        policies: stages around every request, outermost first; default: `default_policies`.
        timeouts: default time limits; shorthand for ``default_options.timeouts``.
        reconnect: waits between attempts to reconnect.
        probe_interval_s: how often to look after an idle connection while somebody listens, in
            seconds, at least 0.5; infinity: never, its next use will tell; default: 10 for
            servers on this machine, never for others.
        clock: what time it is, for tests.

    Raises:
        InvalidParameterError: an argument is wrong.
    """

    kind: str = "custom"
    """Id of this kind of provider, for the registry."""
    capabilities: frozenset[Capability] = frozenset({"chat"})
    """What it can do at most; a model may be able to do less."""
    codec: Codec
    """How requests and answers look on its wire."""
    fim_codec: Codec | None = None
    """The same for filling in the middle, where that looks different."""
    embedding_codec: Codec | None = None
    """The same for embeddings."""
    default_timeouts: Timeouts | None = None
    """Time limits of this kind of provider, where they differ from the usual ones; the weakest."""
    backoff: Backoff = Backoff()
    """Waits between attempts to reconnect, for this kind of provider."""
    probe_interval_s: float | None = None
    """How often this kind of provider is looked after while idle, in seconds; None: never."""
    probe_quick_s: ClassVar[float] = QUICK_S
    """A probe of this kind of provider that takes longer shows that it is slow, in seconds."""
    image_rule: ImageRule | None = None
    """How its service counts the tokens of a picture; None: all pictures are taken for equal."""
    vocabularies: Vocabularies = OPENAI_VOCABULARIES
    """Which vocabulary of tiktoken its models have, by their names."""
    counts_as: Literal["provider", "tokenizer"] = "provider"
    """Who answers `_count_tokens`: a service, or the model's own tokenizer on this machine."""
    is_composite: bool = False
    """Whether it passes requests on to other providers, which announce them as well."""
    is_local: bool = False
    """Whether it runs on this machine, so that a sleep of the computer breaks no connection."""
    models_max_age_s: ClassVar[float] = 300.0
    """A model list older than this is read again when somebody asks, in seconds."""

    def __init__(
        self,
        *,
        id: str | None = None,
        name: str | None = None,
        default_model: str | None = None,
        default_options: Options = None,
        policies: Iterable[Stage] | None = None,
        timeouts: Timeouts | Mapping[str, Any] | None = None,
        reconnect: Backoff | None = None,
        probe_interval_s: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__()
        if reconnect is not None and not isinstance(reconnect, Backoff):
            raise InvalidParameterError(f"reconnect must be a Backoff, got {reconnect!r:.60}")
        if probe_interval_s is not None:
            check_number("probe_interval_s", probe_interval_s, low=0.5)
            self.probe_interval_s = float(probe_interval_s)
        self._backoff = reconnect or self.backoff
        self.id = check_id(id if id is not None else self.kind)
        self.name = name or self.id
        self.source_id = self.id
        self.default_options = as_options(default_options)
        if timeouts is not None:
            if not isinstance(timeouts, Timeouts):
                timeouts = from_mapping(Timeouts, timeouts, "timeouts")
            self.default_options = LLMRequestOptions(timeouts=timeouts).merged_over(
                self.default_options
            )
        self._active_model = default_model
        self._machine = StatusMachine(self, self.id)
        self._connection = Connection(
            self,
            self._machine,
            open=self._masked_open,
            close=self._masked_close,
            probe=self._masked_probe,
            forget_idle=self._forget_idle,
            is_watched=self._is_watched,
            survives_sleep=self.is_local,
            backoff=self._backoff,
            probe_interval_s=self.probe_interval_s,
            probe_quick_s=self.probe_quick_s,
            clock=clock,
        )
        self._catalog = ModelCatalog(
            self._list_all_models, self, self._machine, max_age_s=self.models_max_age_s
        )
        self._policies = default_policies() if policies is None else as_stages(policies)
        self._host = _Host(self)
        self._with_given_policies = self._with_policies()
        self._send_with_policies = self._with_added(self._with_given_policies)
        self._running: dict[str, tuple[Assembly, Ticket]] = {}
        self._begun: set[str] = set()  # and not ended; those that still wait to be sent as well
        self.config_revision = 1

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} {self.status.status}>"

    # ---- to write: what a provider's author supplies ---------------------------------------------

    @abstractmethod
    async def _open(self) -> None:
        """Get ready to send: load a library, build a client.  Raise an `LLMError` if it fails."""

    @abstractmethod
    async def _close(self) -> None:
        """Release what `_open` took; may be called when nothing is open."""

    def _send(self, body: bytes, request: LLMRequest) -> AsyncGenerator[bytes, None]:
        """Send an encoded request; yield the bytes of the answer as they arrive."""
        raise UnsupportedFeatureError(f"{type(self).__name__} defines neither _send nor _exchange")

    @abstractmethod
    async def _list_models(self) -> Sequence[LLMModelInfo]:
        """Ask which models there are; costs nothing and proves that requests will be taken."""

    async def _describe_model(self, model: LLMModelInfo) -> LLMModelInfo:
        """Find out more about one model; the default knows nothing more."""
        return model

    async def _probe(self) -> bool | None:
        """Prove that the provider is usable, at no cost; the default reads the model list.

        Returns:
            Whether it has a model to offer; None if that cannot be known.
        """
        models = await self._awaited_models()
        return bool(self._catalog.accept(self._owned(models)))

    def _codec_for(self, request: LLMRequest) -> Codec:
        """The codec that ``request`` is sent with."""
        special = {"fim": self.fim_codec, "embed": self.embedding_codec}
        return special.get(request.operation) or self.codec

    def _forget_idle(self) -> None:
        """Close connections that wait for their next use before they get one: they are dead."""

    def _rereads_key(self) -> bool:
        """Whether the key comes from a function, which may know a newer one when it is asked."""
        return False

    async def _reread_key(self) -> None:
        """Read a key anew that was refused, where it is kept; the default has none."""

    def _secrets(self) -> Iterable[str]:
        """Texts that must not appear in any error, the key above all; the default has none."""
        return ()

    async def _count_tokens(self, request: LLMRequest) -> int | None:
        """How many tokens the prompt has, at no cost; None if the provider cannot tell."""
        return None

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        """Send one request, once; the default encodes, sends and decodes.

        A provider without a wire overrides this and yields deltas.
        """
        if not hasattr(self, "codec"):
            raise _defect(f"{type(self).__name__} defines neither a codec nor _exchange")
        codec = self._codec_for(request)
        decoder = codec.decoder(request)
        with self._masked(request):
            async with aclosing(self._send(codec.encode(request), request)) as pieces:
                turn_ends_s = monotonic() + _TURN_S
                async for piece in pieces:
                    content = False
                    for delta in decoder.feed(piece):
                        content = True
                        yield delta
                    if not content:
                        self._note_life(request)
                        yield KeepAliveDelta()
                    # While data is waiting, reading does not suspend; others want the loop as well.
                    if monotonic() > turn_ends_s:
                        await asyncio.sleep(0)
                        turn_ends_s = monotonic() + _TURN_S
            for delta in decoder.close():
                yield delta

    async def _masked_probe(self) -> bool | None:
        with self._masked():
            try:
                return await self._probe()
            except AuthenticationError as error:
                if error.http_status != 401 or not self._rereads_key():
                    raise
            await self._reread_key()
            return await self._probe()

    # ---- status ----------------------------------------------------------------------------------

    @property
    def status(self) -> LLMProviderStatus:
        """The present snapshot; takes no lock and does not block."""
        return self._machine.state

    state = status

    @property
    def usable(self) -> bool:
        """Whether requests can be expected to work, by the evidence so far."""
        return self._machine.state.usable

    async def watch(self) -> AsyncIterator[LLMProviderStatus]:
        """The present status, then every later one; what a slow reader misses is left out.

        Always ends on the last status: it stops after ``closed``.
        """
        changed = asyncio.Event()
        seen: LLMProviderStatus | None = None
        with self.subscribe(lambda _: changed.set(), conflate=True):
            while seen is None or seen.status is not ProviderStatus.CLOSED:
                await changed.wait()
                changed.clear()
                if self.status.seq != (seen.seq if seen else None):
                    seen = self.status
                    yield seen

    async def wait_for(
        self,
        wanted: ProviderStatus | str | Callable[[LLMProviderStatus], bool],
        timeout_s: float | None = None,
    ) -> LLMProviderStatus:
        """Wait for a status word, or for a snapshot that satisfies a function.

        Raises:
            InvalidParameterError: there is no such status word.
            TimeoutError: it did not come within ``timeout_s`` seconds.
            ProviderConnectionError: it cannot come any more, the provider was closed.
        """
        holds = wanted if callable(wanted) else _is(wanted)
        found: asyncio.Future[LLMProviderStatus] = asyncio.get_running_loop().create_future()

        def look(event: StatusChanged) -> None:
            if found.done():
                return
            try:
                if holds(event.current):
                    found.set_result(event.current)
                elif event.current.status is ProviderStatus.CLOSED:
                    found.set_exception(self._connection.closed_error())
            except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
                found.set_exception(error)

        # Every step is looked at, not only the newest: a short one must not be missed.
        with self.subscribe(look):
            present = self.status
            if holds(present):
                return present
            try:
                async with asyncio.timeout(timeout_s):
                    return await found
            except TimeoutError:
                shown = wanted if isinstance(wanted, str) else "what was waited for"
                raise TimeoutError(
                    f"{self.id} is {self.status.status} and did not become {shown} "
                    f"within {timeout_s:g} s"
                ) from None

    def _present(self, event: str) -> Iterable[Event]:
        if event == StatusChanged.name:
            state = self.status
            yield StatusChanged(provider_id=self.id, previous=state, current=state, replayed=True)

    # ---- lifecycle -------------------------------------------------------------------------------

    async def connect(self, *, wait: Wait = "attempt", timeout_s: float | None = None) -> None:
        """Open the connection and prove it; does nothing when it is usable already.

        Concurrent callers share one attempt.  Cancelling one does not disturb the others;
        cancelling the last leaves nothing behind.

        Args:
            wait: ``attempt``: until the first attempt has ended; ``ready``: until it is usable,
                through as many attempts as it takes; ``none``: not at all.
            timeout_s: give up waiting after so many seconds.

        Raises:
            InvalidParameterError: there is no such way to wait.
            LLMError: the attempt failed.  If that may pass, the status is ``reconnecting`` and
                attempts go on by themselves; otherwise it is ``failed``.
        """
        if wait not in get_args(Wait):
            raise InvalidParameterError(f"wait must be attempt, ready or none, got {wait!r}")
        await self._connection.connect(wait=wait, timeout_s=timeout_s)

    async def disconnect(self, drain_timeout_s: float = 5.0) -> None:
        """Take no new requests, let the running ones end, close the connection.

        Legal in every status.  A second call may shorten the wait.

        Args:
            drain_timeout_s: after so many seconds running requests are cancelled; their readers
                get a `RequestCancelledError` with what had arrived.
        """
        check_number("drain_timeout_s", drain_timeout_s, low=0)
        await self._connection.disconnect(drain_timeout_s=drain_timeout_s)

    async def close(self, drain_timeout_s: float = 5.0) -> None:
        """`disconnect`, for ever: the object cannot be used again."""
        check_number("drain_timeout_s", drain_timeout_s, low=0)
        await self._connection.close(drain_timeout_s=drain_timeout_s)

    async def is_available(self) -> bool:
        """Whether it is usable now, by fresh evidence; never raises for the provider's fault.

        Evidence of the last 30 seconds counts; otherwise the provider is probed, once for all who
        ask at the same time, and for at most 5 seconds.  A provider that is not connected is
        probed without changing its status.
        """
        return await self._connection.is_available()

    def reconnect_now(self) -> None:
        """Try to reconnect at once instead of waiting: the network is back, a server was started.

        Does nothing unless the status is ``reconnecting``.  Safe from any thread.
        """
        self._connection.reconnect_now()

    async def __aenter__(self) -> BaseLLMProvider:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # ---- models ----------------------------------------------------------------------------------

    async def get_available_models(self, *, refresh: bool = False) -> list[LLMModelInfo]:
        """The models that it offers; cached, and read again when the list is too old.

        Args:
            refresh: read it now, whatever its age.

        Raises:
            LLMError: it cannot be read, and there is no earlier list (or ``refresh`` was asked).
        """
        return list(await self._catalog.get(refresh=refresh))

    async def get_model_info(self, model: str) -> LLMModelInfo:
        """What is known about one model.

        Raises:
            ModelNotFoundError: the provider does not offer it; the text names similar ones.
        """
        await self._catalog.get()
        found = self._catalog.find(model)
        if found is None:
            found = next((m for m in await self._catalog.get(refresh=True) if m.id == model), None)
        if found is None:
            raise self._unknown_model(model)
        async with self._connection.request():
            with self._masked():
                described = await self._describe_model(found)
        if described is not found:
            self._catalog.describe(described)
        return described

    @property
    def known_models(self) -> tuple[LLMModelInfo, ...]:
        """The model list as far as it is known; asks nobody."""
        return self._catalog.models

    @property
    def active_model(self) -> str | None:
        """The model that is used where a call gives none."""
        return self._active_model

    def set_active_model(self, model: str | None) -> None:
        """Choose the model for calls that give none; announced as ``modelChanged``.

        Raises:
            ModelNotFoundError: the model list is known and does not have it.
        """
        if model is not None and self._catalog.models and self._catalog.find(model) is None:
            raise self._unknown_model(model)
        with self.atomic():
            previous, self._active_model = self._active_model, model
            if model != previous:
                self.publish(ModelChanged(provider_id=self.id, previous=previous, current=model))

    async def _list_all_models(self) -> Sequence[LLMModelInfo]:
        async with self._connection.request() as epoch:
            with self._masked():
                models = self._owned(await self._awaited_models())
        self._connection.listed(epoch, any_models=bool(models))
        return models

    async def _awaited_models(self) -> Sequence[LLMModelInfo]:
        models = self._list_models()
        if not isawaitable(models):
            raise _defect(f"{type(self).__name__}._list_models must be 'async def'")
        return await models

    def _owned(self, models: Sequence[LLMModelInfo]) -> list[LLMModelInfo]:
        for model in models:
            if not isinstance(model, LLMModelInfo):
                raise _defect(f"_list_models gave {model!r:.60}, not an LLMModelInfo")
        return [
            m if m.provider_id == self.id else msgspec.structs.replace(m, provider_id=self.id)
            for m in models
        ]

    def _unknown_model(self, model: str) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"there is no model {model!r}", provider_id=self.id, hint=self._similar_models(model)
        )

    def _similar_models(self, model: str) -> str | None:
        known = [m.id for m in self._catalog.models]
        near = get_close_matches(model, known, n=3, cutoff=0.5)
        if near:
            return f"did you mean {' or '.join(map(repr, near))}?"
        return (
            f"it offers {', '.join(known[:5])}{' …' if len(known) > 5 else ''}" if known else None
        )

    # ---- asking ----------------------------------------------------------------------------------

    async def count_tokens(
        self, model: str | None, messages: Messages, options: Options = None
    ) -> TokenCount:
        """How many tokens a prompt has, tool definitions included; costs nothing.

        Returns:
            The provider's own count, where it has one; otherwise tiktoken's, where its vocabulary
            lies on this machine; otherwise an estimate that says so and how far off it may be.

        Raises:
            InvalidParameterError: an argument is wrong.
            ProviderError: the provider could not be asked.
        """
        request = self._request(model, options, "chat", messages=as_messages(messages))
        if type(self)._count_tokens is not BaseLLMProvider._count_tokens:
            async with self._connection.request():
                with self._masked(request):
                    counted = await self._count_tokens(request)
            if counted is not None:
                return TokenCount(tokens=counted, method=self.counts_as)
        return await count_prompt(request, self.image_rule, self.vocabularies)

    def get_capabilities(self, model: str | None = None) -> LLMCapabilities:
        """What the provider, or one of its models, can do, and who says so; asks nobody.

        What a model can do is known once the model list has been read (`get_model_info` finds out
        more, where the provider tells more about a single model).
        """
        known = None if model is None else self._catalog.find(model)
        return capabilities_of(self.id, self.capabilities, model, known)

    # ---- the one path ----------------------------------------------------------------------------

    def _request(
        self, model: str | None, options: Options, operation: Operation, **content: Any
    ) -> LLMRequest:
        chosen = model if model is not None else self._active_model
        if not isinstance(chosen, str) or not chosen:
            raise InvalidParameterError(
                f"no model: {model!r} was given and none is active" if model is None
                else f"model must be the id of a model, got {model!r}",
                provider_id=self.id,
                hint="pass the id of a model, or set default_model",
            )  # fmt: skip
        request = LLMRequest(
            id=f"req-{os.getpid():x}-{next(_numbers)}",
            model=chosen,
            options=merged(
                as_options(options),
                self.default_options,
                _of_timeouts(self.default_timeouts),
            ),
            operation=operation,
            **content,
        )
        self._check(request)
        return request

    def _check(self, request: LLMRequest) -> None:
        """Refuse what provider or model cannot do, as far as that is known."""
        wanted = _wanted(request)
        if not wanted:
            return
        known = self._catalog.find(request.model)
        of_model = known.capabilities if known is not None else None
        for what, able in (
            (f"provider {self.id!r}", self.capabilities),
            (f"model {request.model!r}", of_model),
        ):
            if able is not None and (missing := wanted - able):
                raise UnsupportedFeatureError(
                    f"{what} cannot do: {', '.join(sorted(missing))}",
                    provider_id=self.id,
                    hint=f"it can do: {', '.join(sorted(able))}",
                )

    def _takes(self, capability: Capability) -> Callable[[LLMRequest], bool]:
        """Tells of a request whether its model can do this, as far as that is known."""

        def takes(request: LLMRequest) -> bool:
            known = self._catalog.find(request.model)
            of_model = None if known is None else known.capabilities
            return capability in self.capabilities and (of_model is None or capability in of_model)

        return takes

    def _stream_for(
        self,
        model: str | None,
        options: Options,
        operation: Operation,
        callback: StreamCallback | None = None,
        **content: Any,
    ) -> LLMStream:
        request = self._request(model, options, operation, **content)
        assembly, interrupter = Assembly(request, self.id, self.image_rule), Interrupter()
        stream = LLMStream(
            self._ask(request, assembly, interrupter),
            assembly,
            callback=callback,
            interrupter=interrupter,
        )
        self._connection.track(stream)
        return stream

    async def _ask(
        self, request: LLMRequest, assembly: Assembly, interrupter: Interrupter
    ) -> AsyncGenerator[Delta, None]:
        """Run one request through the policies; announce its start and its one end."""
        connection = self._connection
        assembly.begin()
        if request.options.supersede_key is not None:
            connection.supersede(request)
        self._begun.add(request.id)
        self.publish(RequestStarted(provider_id=self.id, **(about := self._about(request))))
        outcome: Literal["ok", "error", "cancelled", "abandoned"] = "cancelled"
        failure: LLMError | None = None
        ticket: Ticket | None = None
        try:
            ticket = await connection.begin_request()
            self._running[request.id] = (assembly, ticket)
            proven = False
            async with aclosing(self._send_with_policies(request)) as deltas:
                async for delta in deltas:
                    if not proven:
                        proven = True
                        if not (type(delta) is MetaDelta and delta.cached):
                            connection.succeeded(ticket.epoch)
                    yield delta
            outcome = "ok"
        except LLMError as error:
            failure = error.in_context(provider_id=self.id, request_id=request.id)
            error.mask(self._all_secrets(), request.private_texts)
            if isinstance(error, ModelNotFoundError):
                error.hint = self._similar_models(request.model) or error.hint
            outcome = "cancelled" if isinstance(error, RequestCancelledError) else "error"
            if ticket is not None:
                connection.failed(error, ticket.epoch)
            raise
        except Exception as error:  # noqa: BLE001 - a provider's author may raise anything
            failure, outcome = as_llm_error(error), "error"
            failure.in_context(provider_id=self.id, request_id=request.id)
            secrets = self._all_secrets()
            failure.mask(secrets, request.private_texts)
            if ticket is not None:
                connection.failed(failure, ticket.epoch)
            tells = without_secrets(error, secrets) is not error
            raise failure from None if tells else error
        except GeneratorExit:
            outcome = "cancelled" if interrupter.error is not None else "abandoned"
            raise
        finally:
            self._running.pop(request.id, None)
            self._begun.discard(request.id)
            if ticket is not None:
                connection.end_request(ticket)
            if outcome != "ok":
                assembly.break_off()
            self.publish(
                RequestFinished(
                    provider_id=self.id,
                    outcome=outcome,
                    error=None if failure is None else ErrorInfo.of(failure),
                    **about,
                    **assembly.facts,
                )
            )
            if ticket is not None:
                await connection.drop_if_unproven()

    def _about(self, request: LLMRequest) -> dict[str, Any]:
        """What both ends of a request tell about it."""
        return {
            "request_id": request.id,
            "model": request.model,
            "operation": request.operation,
            "kind": self.kind,
            "parent_id": request.parent_id,
            "composite": self.is_composite,
            "conversation_id": request.options.conversation_id,
        }

    def _with_policies(self) -> Exchange:
        """The exchange with the policies of the constructor."""
        return chain(self._policies, self._counted_exchange, self._host)

    def _with_added(self, exchange: Exchange) -> Exchange:
        structured = StructuredOutput(self._takes("json_schema"), self._takes("json_object"))
        return chain((structured, *self._added), exchange, self._host)

    def _counted_exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        running = self._running.get(request.id)
        if running is not None:
            assembly, ticket = running
            assembly.attempts += 1
            self._connection.sends(ticket)
        if self._rereads_key():
            return self._with_reread_key(request)
        return self._masked_exchange(request)

    def _masked_exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        # Inside of the policies: what they announce of a failure must be masked, too.
        answer = self._exchange(request)
        if type(self)._exchange is BaseLLMProvider._exchange:
            return answer  # which does it itself, at no cost for each piece
        if not hasattr(answer, "aclose"):
            if hasattr(answer, "close"):
                answer.close()  # a coroutine that nobody awaits
            raise _defect(
                f"{type(self).__name__}._exchange is no asynchronous generator: "
                "write it with 'async def', and hand on deltas with 'yield'"
            )
        return self._masking(answer, request)

    async def _masking(
        self, answer: AsyncGenerator[Delta, None], request: LLMRequest
    ) -> AsyncGenerator[Delta, None]:
        with self._masked(request):
            async with aclosing(answer) as deltas:
                async for delta in deltas:
                    yield delta

    async def _with_reread_key(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        """Send it once more if the key is refused: the function may know a newer one by now."""
        begun = False
        try:
            async with aclosing(self._masked_exchange(request)) as deltas:
                async for delta in deltas:
                    begun = True
                    yield delta
            return
        except AuthenticationError as error:
            if begun or error.http_status != 401:
                raise
            refused = ErrorInfo.of(error)
        assembly, _ = self._running[request.id]
        self.publish(
            RetryScheduled(
                provider_id=self.id,
                request_id=request.id,
                attempt=assembly.attempts,
                of=assembly.attempts + 1,
                wait_s=0.0,
                retry_at=datetime.now(UTC),
                error=refused,
            )
        )
        assembly.attempts += 1
        await self._reread_key()
        async with aclosing(self._masked_exchange(request)) as deltas:
            async for delta in deltas:
                yield delta

    def _note_life(self, request: LLMRequest) -> None:
        running = self._running.get(request.id)
        if running is not None:
            running[0].signs_of_life += 1

    def _is_watched(self) -> bool:
        """Whether anybody listens, here or at the manager."""
        manager = getattr(self._relay, "__self__", None)
        return self.is_watched or (isinstance(manager, EventEmitter) and manager.is_watched)


def default_policies() -> tuple[Stage, ...]:
    """What a provider does around each request if nothing else is said, outermost first."""
    return (
        CircuitBreaker(),
        ConcurrencyLimit(),
        CooldownPolicy(),
        DeadlinePolicy(),
        RetryPolicy(),
    )


class _Host:
    """A provider as its policies see it; see `policy.Host`."""

    def __init__(self, provider: BaseLLMProvider) -> None:
        self._provider = provider
        self._connection = provider._connection
        self._machine = provider._machine
        self.kind = provider.kind
        self.is_composite = provider.is_composite
        self._settings = 0, ""  # as of that revision
        self.open_circuit = self._connection.open_circuit
        self.half_open_circuit = self._connection.half_open_circuit
        self.close_circuit = self._connection.close_circuit

    @property
    def status(self) -> LLMProviderStatus:
        return self._machine.state

    @property
    def address(self) -> str:
        return str(getattr(self._provider, "base_url", ""))

    @property
    def settings(self) -> str:
        provider, (revision, shown) = self._provider, self._settings
        if revision != provider.config_revision:
            revision, shown = provider.config_revision, provider._shown_settings()
            self._settings = revision, shown
        return shown

    def publish(self, event: Event) -> bool:
        # A policy does not know the provider that it serves.
        return self._provider.publish(msgspec.structs.replace(event, provider_id=self._provider.id))

    def count_queued(self, change: int) -> None:
        with self._provider.atomic():
            self._machine.measure(queued=max(self._machine.state.queued + change, 0))


@cache
def _of_timeouts(timeouts: Timeouts | None) -> LLMRequestOptions:
    return LLMRequestOptions(timeouts=timeouts)


def _defect(text: str) -> ProviderError:
    return ProviderError(text, code="unexpected", hint="this is a mistake in the provider class")


_OF_OPERATION: dict[Operation, Capability] = {"fim": "fim", "embed": "embeddings"}


def _wanted(request: LLMRequest) -> frozenset[Capability]:
    options = request.options
    wanted: set[Capability] = set()
    if request.operation in _OF_OPERATION:
        wanted.add(_OF_OPERATION[request.operation])
    if options.tools:
        wanted.add("tools")
    if options.response_format == "json_object":
        wanted.add("json_object")
    for message in request.messages:
        for part in () if isinstance(message.content, str) else message.content:
            if isinstance(part, ImagePart):
                wanted.add("vision")
            elif isinstance(part, FilePart):
                wanted.add("files")
    return frozenset(wanted)


def _is(word: ProviderStatus | str) -> Callable[[LLMProviderStatus], bool]:
    try:
        status = ProviderStatus(word)
    except ValueError:
        raise InvalidParameterError(
            f"{word!r} is no status; use one of {', '.join(ProviderStatus)}"
        ) from None
    return lambda state: state.status is status
