"""`Attachable`: how a listener gets to the events of a provider or of a whole manager.

Its methods are called where an event happens, so that none is missed however busy the event loop
is.  They have to be quick, must not raise, and may come from several threads, so
that what they change is guarded by ``self._lock``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import ClassVar, Self

from ._threads import reset_after_fork
from .emitter import EventEmitter
from .errors import InvalidParameterError
from .events import Event, ProviderAdded
from .subscription import Subscription

# While one thread delivers, the events of the others wait for it; none may be lost.
_MAILBOX_LIMIT = 1_000_000
# So many events of parts are known, each until it comes the second time.
_REMEMBERED = 1024


class Attachable:
    """Base of what listens to providers: `attach`, `detach`, or a ``with`` block.

    ::

        class Counter(Attachable):
            listens_to = {"requestFinished": "_finished"}

    Attributes:
        listens_to: names of events, and of the methods that take them.
        batch: how many events are kept before the methods are called, which is cheaper than one
            at a time; who is asked calls `catch_up` first.
    """

    listens_to: ClassVar[Mapping[str, str]] = {}
    batch: int = 1

    def __init__(self) -> None:
        # Reentrant: a garbage collection in the middle of a method may end a request.
        self._lock = threading.RLock()
        self._attached: dict[EventEmitter, Subscription] = {}
        self._arrivals: list[Subscription] = []
        self._parts: frozenset[str] = frozenset()
        self._heard_of: dict[tuple[str, str, datetime], bool] = {}
        self._methods = {name: getattr(self, method) for name, method in self.listens_to.items()}
        reset_after_fork(self)

    @property
    def attached(self) -> bool:
        """Whether it listens to anything."""
        return bool(self._attached)

    def attach(self, emitter: EventEmitter) -> Self:
        """Listen to a provider, or to all providers of a manager, later ones included.

        Several may be attached.  Attaching what is attached already does nothing.  A provider that
        is registered later with a manager that is attached is heard through that one only.

        Returns:
            The listener itself, for ``with Listener().attach(manager): ...``.

        Raises:
            InvalidParameterError: it is neither, or a provider and its manager would both be
                listened to, which counts everything twice.
        """
        if not isinstance(emitter, EventEmitter):
            raise InvalidParameterError(
                f"attach() takes a provider or a manager, got {emitter!r:.60}"
            )
        with self._lock:
            if emitter not in self._attached:
                self._refuse_relatives(emitter)
                self._before_attaching(emitter)
                self._attached[emitter] = emitter.subscribe(
                    self._heard,
                    tuple(self.listens_to),
                    delivery="inline",
                    limit=_MAILBOX_LIMIT,
                    batch=self.batch,
                    watches=False,
                )
                self._look_for_parts()
                self._arrivals.append(
                    emitter.subscribe(
                        self._leave_to_managers, "providerAdded", delivery="inline", watches=False
                    )
                )
        return self

    def detach(self) -> None:
        """Stop listening to everything; what is known is kept.  Idempotent."""
        with self._lock:
            attached, self._attached = self._attached, {}
            arrivals, self._arrivals = self._arrivals, []
        for arrival in arrivals:
            arrival.close()
        for emitter, subscription in attached.items():
            subscription.drain()
            subscription.close()
            self._after_detaching(emitter)

    def catch_up(self) -> None:
        """Take in the events that are kept for the next ``batch``."""
        for subscription in tuple(self._attached.values()):
            subscription.drain()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.detach()

    # ---- what a listener may add -----------------------------------------------------------------

    def _before_attaching(self, emitter: EventEmitter) -> None:
        """Prepare for the events of ``emitter``, or refuse it."""

    def _after_leaving(self, emitter: EventEmitter) -> None:
        """``emitter`` is heard through its manager from now on."""

    def _after_detaching(self, emitter: EventEmitter) -> None:
        """Forget what only later events of ``emitter`` could have ended."""

    # ---- inside ----------------------------------------------------------------------------------

    def _at_once(self) -> None:
        """Take in every event when it happens, from now on."""
        self.batch = 1
        for subscription in tuple(self._attached.values()):
            subscription.batch = 1
        self.catch_up()

    def _heard(self, event: Event) -> None:
        if self._parts and event.provider_id in self._parts and self._has_been_heard(event):
            return
        self._methods[event.name](event)

    def _has_been_heard(self, event: Event) -> bool:
        """Whether this is the second time: from a member and from the composite, say."""
        request_id = getattr(event, "request_id", None)
        if request_id is None:
            return False
        with self._lock:
            key = (event.name, request_id, event.at)
            if self._heard_of.pop(key, False):
                return True
            self._heard_of[key] = True
            if len(self._heard_of) > _REMEMBERED:
                del self._heard_of[next(iter(self._heard_of))]
        return False

    def _look_for_parts(self) -> None:
        """Find out whose events may come twice.  The lock is held."""
        told = {part for emitter in self._attached for part in _free_parts(emitter)}
        self._parts = frozenset(e.source_id for e in self._attached if e in told)

    def _leave_to_managers(self, event: ProviderAdded) -> None:
        """Stop listening to providers that a manager speaks for by now, to count nothing twice."""
        with self._lock:
            left = [e for e in self._attached if _manager_of(e) in self._attached]
            subscriptions = [self._attached.pop(emitter) for emitter in left]
            self._look_for_parts()
        for emitter, subscription in zip(left, subscriptions, strict=True):
            subscription.drain()
            subscription.close()
            self._after_leaving(emitter)

    def _refuse_relatives(self, emitter: EventEmitter) -> None:
        for other in self._attached:
            if _manager_of(other) is emitter or _manager_of(emitter) is other:
                raise InvalidParameterError(
                    f"{emitter!r:.60} belongs together with {other!r:.60}, which is attached",
                    hint="attach either the manager or its providers; detach() first",
                )

    def _after_fork(self) -> None:
        self._lock = threading.RLock()


def _manager_of(emitter: EventEmitter) -> object:
    """Who passes on the events of a provider; None if nobody does."""
    return getattr(emitter._relay, "__self__", None)


def _free_parts(emitter: EventEmitter) -> Iterator[EventEmitter]:
    """Members, and members of members, whose part in its requests ``emitter`` tells as well.

    Those are the members of a composite, or of a composite of a manager, that no manager holds.
    """
    members = getattr(emitter, "members", ())
    for part in (*getattr(emitter, "providers", {}).values(), *members):
        if isinstance(part, EventEmitter):
            if part in members and part._relay is None:
                yield part
            yield from _free_parts(part)
