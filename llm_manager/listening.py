"""`Attachable`: how a listener gets to the events of a provider or of a whole manager.

Its methods are called where an event happens, so that none is missed however busy the event loop
is.  They have to be quick, must not raise, and may come from several threads, so
that what they change is guarded by ``self._lock``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

from ._threads import reset_after_fork
from .emitter import EventEmitter, Subscription
from .errors import InvalidParameterError
from .events import Event, ProviderAdded

# While one thread delivers, the events of the others wait for it; none may be lost.
_MAILBOX_LIMIT = 1_000_000


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
            InvalidParameterError: it is neither, or another that is attached tells the same: its
                manager, a provider of it, a composite whose part it is.  Everything would be
                counted twice.
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
        self._methods[event.name](event)

    def _leave_to_managers(self, event: ProviderAdded) -> None:
        """Stop listening to those whose events others tell by now, to count nothing twice."""
        with self._lock:
            told = {part for emitter in self._attached for part in _told_by(emitter)}
            left = [emitter for emitter in self._attached if emitter in told]
            subscriptions = [self._attached.pop(emitter) for emitter in left]
        for subscription in subscriptions:
            subscription.drain()
            subscription.close()

    def _refuse_relatives(self, emitter: EventEmitter) -> None:
        for other in self._attached:
            if emitter in _told_by(other) or other in _told_by(emitter):
                raise InvalidParameterError(
                    f"{emitter!r:.60} belongs together with {other!r:.60}, which is attached",
                    hint="attach the one that holds the other; detach() first",
                )

    def _after_fork(self) -> None:
        self._lock = threading.RLock()


def _told_by(emitter: EventEmitter) -> Iterator[EventEmitter]:
    """Whose events ``emitter`` tells as well.

    Those are the providers of a manager, and the members of a composite that no manager holds.
    """
    members = getattr(emitter, "members", ())
    for part in (*getattr(emitter, "providers", {}).values(), *members):
        if isinstance(part, EventEmitter) and (part not in members or part._relay is None):
            yield part
            yield from _told_by(part)
