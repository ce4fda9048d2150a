"""`EventEmitter`: pyee's emitter with delivery that a status display can rely on.

* **Order.**  Every registration sees the events of one emitter in the order in which they
  happened, one at a time, whichever threads emit and however long a listener takes.
* **Isolation.**  `emit` only appends to mailboxes.  No listener runs inside the code that emits,
  none can raise into it, delay it or skip another listener; ``error`` never raises.
* **Place.**  A listener runs on the event loop that was running where it was registered; where
  none was, on one background thread.  ``delivery="inline"`` runs it where the event is emitted,
  as soon as no lock is held; with ``batch``, so many events at once.
* **Bounds.**  A mailbox holds 1,024 events; then the oldest go, counted in ``coalesced``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar, overload

from pyee.base import EventEmitter as PyeeEmitter

from ._threads import reset_after_fork
from .errors import InvalidParameterError
from .events import Event, StatusChanged
from .status import ProviderStatus
from .subscription import MAILBOX_LIMIT, Atomic, Delivery, Listener, Subscription, here, log

AnyListener = TypeVar("AnyListener", bound=Listener)


class EventEmitter(PyeeEmitter):
    """pyee's emitter with ordered, isolated, thread-safe delivery; see the module's text.

    ``on``, ``add_listener``, ``once``, ``emit``, ``remove_listener``, ``listeners`` and
    ``event_names`` mean what they mean in pyee, except that `emit` returns before listeners run
    and that removing what is not there does nothing.

    Attributes:
        source_id: what the events are about, for `ListenerFailed`.
        lock: the one lock of this emitter; who changes state and announces it holds it for both.
    """

    source_id: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self._atomic = Atomic(self.lock)
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._relay: Callable[[str, tuple[Any, ...], list[Subscription]], bool] | None = None
        reset_after_fork(self)

    # ---- listening -------------------------------------------------------------------------------

    # pyee returns a union, which type checkers cannot use as a decorator.
    @overload  # type: ignore[override]
    def on(self, event: str, f: AnyListener, **how: Any) -> AnyListener: ...
    @overload
    def on(
        self, event: str, f: None = None, **how: Any
    ) -> Callable[[AnyListener], AnyListener]: ...
    def on(self, event: str, f: Any = None, **how: Any) -> Any:
        """Call ``f`` for every later ``event``; without ``f``, a decorator.

        Args:
            event: name of the event.
            f: function or coroutine function.
            how: as for `subscribe`.
        """
        if f is None:
            return self.listens_to(event, **how)
        return self.add_listener(event, f, **how)

    def listens_to(self, event: str, **how: Any) -> Callable[[AnyListener], AnyListener]:
        """`on` as a decorator."""

        def register(f: AnyListener) -> AnyListener:
            return self.add_listener(event, f, **how)

        return register

    def add_listener(self, event: str, f: AnyListener, **how: Any) -> AnyListener:
        """`on` without its decorator form; the same function counts once per event."""
        with self.atomic():
            if not any(s.listener == f and not s.once for s in self._known(event)):
                self._add(Subscription(self, event, f, **how), event)
        return f

    def once(self, event: str, f: Any = None, **how: Any) -> Any:
        """Call ``f`` for the next ``event`` only; without ``f``, a decorator."""
        if f is None:
            return lambda g: self.once(event, g, **how)
        with self.atomic():
            self._add(Subscription(self, event, f, once=True, **how), event)
        return f

    def subscribe(
        self,
        listener: Listener,
        event: str | tuple[str, ...] = StatusChanged.name,
        *,
        delivery: Delivery = "loop",
        conflate: bool = False,
        weak: bool = False,
        limit: int = MAILBOX_LIMIT,
        batch: int = 1,
        watches: bool = True,
    ) -> Subscription:
        """Tell ``listener`` the present state, then every later ``event``: no gap, no repetition.

        Args:
            listener: function or coroutine function.
            event: its name, or several, which then come in their common order; events without a
                present state have nothing to tell at first.
            delivery: ``loop`` (see the module's text) or ``inline``.
            conflate: keep only the newest undelivered event of each provider.
            weak: do not keep the listener (a bound method, say) alive.
            limit: how many undelivered events are kept.
            batch: of ``inline``: wait until there are so many, or until `Subscription.drain`; for
                who adds up and is asked seldom.
            watches: whether somebody looks at what is told, for whose sake a provider that is
                idle is looked after; not for what only adds up.

        Raises:
            InvalidParameterError: there is no such ``delivery``, ``limit`` or ``batch`` is below 1,
                or a ``batch`` is not ``inline``.
        """
        names = event if isinstance(event, tuple) else (event,)
        subscription = Subscription(
            self,
            ", ".join(map(str, names)),
            listener,
            delivery=delivery,
            conflate=conflate,
            weak=weak,
            limit=limit,
            batch=batch,
            watches=watches,
        )
        with self.atomic():
            for name in names:
                self._add(subscription, name)
                for present in self._present(name):
                    if subscription._post(((present,), {})):
                        here.ready.append(subscription)
        return subscription

    def remove_listener(self, event: str, f: Listener) -> None:
        """Stop calling ``f`` for ``event``, from now on; nothing happens if it is not called."""
        with self.lock:
            found = sorted((s for s in self._known(event) if s.listener == f), key=lambda s: s.once)
        for subscription in found[:1]:
            subscription.close()

    def remove_all_listeners(self, event: str | None = None) -> None:
        with self.lock:
            names = list(self._subscriptions) if event is None else [event]
            found = [s for name in names for s in self._known(name)]
        for subscription in found:
            subscription.close()

    def listeners(self, event: str) -> list[Listener]:
        with self.lock:
            found = [s.listener for s in self._known(event) if s._listening]
        return [f for f in found if f is not None]

    def event_names(self) -> set[str]:
        with self.lock:
            return {
                name
                for name in list(self._subscriptions)
                if any(s._listening for s in self._known(name))
            }

    @property
    def is_watched(self) -> bool:
        """Whether anybody listens who looks at what is told; see `subscribe`."""
        with self.lock:
            return any(
                subscription._listening and subscription._watches
                for name in list(self._subscriptions)
                for subscription in self._known(name)
            )

    # ---- emitting --------------------------------------------------------------------------------

    def emit(self, event: str, *args: Any, **kwargs: Any) -> bool:
        """Tell everybody who listens to ``event``; says whether anybody does.

        Never runs a listener before it returns (``delivery="inline"`` apart), never blocks on one,
        never raises what one raises.  Safe from any thread.
        """
        with self._atomic:
            handled = self._post(event, args, kwargs, here.ready)
        if not handled and event == "error" and not here.complaining:
            here.complaining = True  # a log handler may turn records into events
            try:
                log.warning("unhandled error: %s", args[0] if args else None)
            finally:
                here.complaining = False
        return handled

    def publish(self, event: Event) -> bool:
        """Emit an event under its name."""
        return self.emit(event.name, event)

    def atomic(self) -> Atomic:
        """Hold the emitter's lock: what is emitted inside is delivered in one piece afterwards."""
        return self._atomic

    async def flush(self, timeout_s: float = 1.0, *, synchronous_only: bool = False) -> bool:
        """Wait until the listeners on this loop have got what was emitted before.

        Args:
            timeout_s: how long at most; a listener that takes longer is not waited for.
            synchronous_only: do not wait for listeners that are coroutine functions.

        Returns:
            Whether all of them have.
        """
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        waiting: list[tuple[Subscription, asyncio.Future[None]]] = []
        with self.lock:
            for subscription in [s for found in self._subscriptions.values() for s in found]:
                awaited = subscription._loop is loop and subscription._scheduled
                if awaited and (subscription._task is None or subscription._task is not me):
                    waiter = loop.create_future()
                    subscription._waiters.append(waiter)
                    waiting.append((subscription, waiter))
        if synchronous_only and waiting:
            # An asynchronous listener shows as such only after its first call.
            await asyncio.sleep(0)
            waiting = [(s, waiter) for s, waiter in waiting if s._task is None]
        late = {waiter for _, waiter in waiting if not waiter.done()}
        if late:
            _, late = await asyncio.wait(late, timeout=timeout_s)
        return not late

    # ---- inside ----------------------------------------------------------------------------------

    def _present(self, event: str) -> Iterable[Event]:
        """The events that describe the present state, for `subscribe`."""
        return ()

    def _known(self, event: str) -> list[Subscription]:
        """Who listens to ``event``; forgets those who no longer do.  The lock is held."""
        present = self._subscriptions.get(event, [])
        known = [s for s in present if s._needed]
        if len(known) < len(present):
            self._subscriptions[event] = known
            for subscription in present:
                if not subscription._needed:
                    subscription.close()
        if not known:
            self._subscriptions.pop(event, None)
        return known

    def _add(self, subscription: Subscription, event: str) -> None:
        """Begin to deliver to a subscription.  The lock is held.

        Raises:
            InvalidParameterError: it is the name of an event in other letters, which nobody emits.
        """
        known = _names().get(event.replace("_", "").lower(), event)
        if known != event:
            raise InvalidParameterError(
                f"there is no event {event!r}", hint=f"did you mean {known!r}?"
            )
        self.emit("new_listener", event, subscription.listener)
        # Copy on write: a list that is being delivered to never changes.
        self._subscriptions[event] = [*self._known(event), subscription]

    def _post(
        self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any], ready: list[Subscription]
    ) -> bool:
        """Fill mailboxes; who has to be woken goes into ``ready``.  The lock is held."""
        mail = (args, kwargs)
        handled = idle = False
        for subscription in self._subscriptions.get(event, ()):
            if subscription._listening:
                handled = True
                if subscription._post(mail):
                    ready.append(subscription)
            else:
                idle = True
        if idle:
            self._known(event)
        if self._relay is not None and self._relay(event, args, ready):
            handled = True
        return handled

    def _after_fork(self) -> None:
        """Begin anew in a child process: other threads may have held the locks."""
        self.lock = threading.RLock()
        self._atomic = Atomic(self.lock)
        self._lock = threading.Lock()
        for found in self._subscriptions.values():
            for subscription in found:
                subscription._after_fork(self.lock)
        for event in list(self._subscriptions):
            self._known(event)


@cache
def _names() -> dict[str, str]:
    """The names of the events of this library, by their letters; one's own have any name."""
    names = (*(kind.name for kind in Event.__subclasses__()), *ProviderStatus)
    return {str(name).lower(): str(name) for name in names}
