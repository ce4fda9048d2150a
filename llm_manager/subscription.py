"""`Subscription`: one listener and its mailbox, and who empties that, where.

An emitter puts events into mailboxes while it holds its lock; here they are delivered once no lock
is held, on the loop of the listener, on the background thread, or on the spot.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import inspect
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from ._threads import LoopThread, reset_after_fork
from .errors import InvalidParameterError, text_of
from .events import Event, ListenerFailed, StatusChanged
from .redaction import redact
from .status import ErrorInfo

if TYPE_CHECKING:
    from .emitter import EventEmitter

log = logging.getLogger("llm_manager.events")
# Without a handler, Python would print warnings of a library on stderr by itself.
logging.getLogger("llm_manager").addHandler(logging.NullHandler())

Listener = Callable[..., Any]
Delivery = Literal["loop", "inline"]
Mail = tuple[tuple[Any, ...], dict[str, Any]]

MAILBOX_LIMIT = 1024
# One turn of the loop delivers at most this many events to a synchronous listener.
_BATCH = 64
_REPORTS = frozenset({"error", "listenerError"})

_dispatcher = LoopThread("llm_manager-events")


def on_dispatcher_thread() -> bool:
    """Whether the caller is a listener that was registered where no loop ran."""
    return _dispatcher.is_current


class Subscription:
    """One registered listener and its mailbox; `close` ends it.

    Attributes:
        event: the name of the events it listens to, or names with commas between them.
        once: whether it ends after one event.
        coalesced: how many events it has missed, because newer ones took their place.
        batch: how many events are delivered together; may be changed at any time.
    """

    def __init__(
        self,
        emitter: EventEmitter,
        event: str,
        listener: Listener,
        *,
        delivery: Delivery = "loop",
        limit: int = MAILBOX_LIMIT,
        conflate: bool = False,
        once: bool = False,
        weak: bool = False,
        batch: int = 1,
        watches: bool = True,
    ) -> None:
        _check(listener, delivery, limit, batch)
        self.event = event
        self.once = once
        self.coalesced = 0
        self._name = _described(listener)
        self._emitter = weakref.ref(emitter)
        self._strong = None if weak else listener
        self._listener = _reference(listener, weak, self.close)
        self._inline = delivery == "inline"
        self._loop = _loop_here() if delivery == "loop" else None
        self._limit = limit
        self.batch = batch
        self._watches = watches
        self._conflate = conflate
        self._mailbox: collections.deque[Mail] = collections.deque()
        # The emitter's own lock, never one of ours: two would have to be taken in a fixed order,
        # and what a garbage collection runs, it runs in the middle of anything.
        self._lock = emitter.lock
        self._listening = True
        self._closed = False
        self._scheduled = False
        self._missed = 0
        self._asynchronous = not self._inline and inspect.iscoroutinefunction(listener)
        self._task: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._failures: collections.Counter[str] = collections.Counter()
        self._consecutive = 0

    def __repr__(self) -> str:
        return f"<Subscription to {self.event!r}{', closed' if self._closed else ''}>"

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def listener(self) -> Listener | None:
        """The function that is called; None when it is closed, or was held weakly and is gone."""
        listener: Listener | None = self._listener()
        return listener

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Stop listening at once; a running asynchronous listener is cancelled.  Idempotent."""
        # Takes no lock, because a garbage collection may call it; the emitter forgets us later.
        self._listening, self._closed = False, True
        self._mailbox, self._strong, self._listener = collections.deque(), None, _nobody
        task = self._task
        if task is None or task.done():
            return
        loop = task.get_loop()
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its tasks with it
            if asyncio._get_running_loop() is not loop:
                loop.call_soon_threadsafe(task.cancel)
            elif task is not asyncio.current_task():
                task.cancel()

    def drain(self) -> None:
        """Deliver what a ``batch`` still waits for; for who wants to know how things are now.

        While another thread is delivering, that thread goes on and this one does not wait.
        """
        with self._lock:
            if self._scheduled or not self._mailbox or not self._inline:
                return
            self._scheduled = True
        self._drain_here()

    # ---- from the emitter, which holds its lock --------------------------------------------------

    def _post(self, mail: Mail) -> bool:
        """Put an event into the mailbox; says whether `_wake` has to be called."""
        mailbox = self._mailbox
        if self._conflate:
            self._displace(mail)
        elif len(mailbox) >= self._limit:
            mailbox.popleft()
            self._miss(1)
        mailbox.append(mail)
        if self.once:
            self._listening = False
        if self._scheduled:
            if not self._has_a_place:
                self.close()
            return False
        if self.batch > 1 and len(mailbox) < self.batch:
            return False
        self._scheduled = True
        return True

    def _displace(self, mail: Mail) -> None:
        """Drop what is undelivered about the same provider."""
        about = _subject(mail)
        others = [m for m in self._mailbox if _subject(m) != about]
        if len(others) < len(self._mailbox):
            self._miss(len(self._mailbox) - len(others))
            self._mailbox.clear()
            self._mailbox.extend(others)

    def _miss(self, count: int) -> None:
        self._missed += count
        self.coalesced += count

    @property
    def _has_a_place(self) -> bool:
        """Whether the loop that it listens on can still run."""
        return self._loop is None or not self._loop.is_closed()

    @property
    def _needed(self) -> bool:
        """Whether the emitter has to know it: it listens, or has something left to deliver."""
        return self._has_a_place and (self._listening or (self._scheduled and not self._closed))

    # ---- on the listener's side ------------------------------------------------------------------

    def _take(self) -> Mail | None:
        """The next event; None if there is none, and then the mailbox is at rest."""
        with self._lock:
            if not self._mailbox:
                self._rest()
                return None
            mail = self._mailbox.popleft()
            missed, self._missed = self._missed, 0
        return _with_count(mail, missed) if missed else mail

    def _rest(self) -> None:
        """Begin to wait for the next event.  The lock is held."""
        self._scheduled, self._task = False, None
        while self._waiters:
            waiter = self._waiters.pop()
            if not waiter.done():
                waiter.set_result(None)

    def _drain(self) -> None:
        """Deliver what is in the mailbox, one event after another."""
        if self._asynchronous:
            self._start()
            return
        for _ in range(_BATCH):
            mail = self._take()
            if mail is None:
                return
            try:
                result = self._call(*mail)
            except BaseException as error:  # noqa: BLE001 - a listener may raise anything
                _raise_apart(error)
                break
            if result is not None:
                # One that could not be told from a function before it was called.
                self._asynchronous = True
                self._start(result)
                return
        wake([self])

    def _drain_here(self) -> None:
        """`_drain` for ``inline``, which is on the path of every request: few calls, no loop."""
        while True:
            if not self._mailbox:
                # First at rest, then a last look; `_post` does it the other way round.  So
                # whichever thread is faster, one of them delivers, and no lock is needed for it.
                self._scheduled = False
                if not self._mailbox or not self._take_over():
                    return
            with self._lock:
                if not self._mailbox:
                    continue
                mail = self._mailbox.popleft()
                if self._missed:
                    mail, self._missed = _with_count(mail, self._missed), 0
            try:
                listener = self._strong or self._listener()
                if listener is None:
                    continue
                args, kwargs = mail
                try:
                    result = listener(*args, **kwargs)
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:  # noqa: BLE001 - as in `_call`
                    self._failed(error)
                    continue
                if result is None or not inspect.isawaitable(result):
                    self._consecutive = 0
                    continue
                _discard(result)
                self._failed(TypeError("a listener with delivery='inline' must not be async"))
            except BaseException:  # an exit, or of a broken log handler; the next begins anew
                self._scheduled = False
                raise

    def _take_over(self) -> bool:
        """Go on delivering, unless another thread does or there is nothing to deliver."""
        with self._lock:
            if self._scheduled or not self._mailbox:
                return False
            self._scheduled = True
            return True

    def _start(self, result: Awaitable[Any] | None = None) -> None:
        self._task = asyncio.get_running_loop().create_task(self._pump(result))
        if result is not None:  # a task that is cancelled at once never looks at it
            self._task.add_done_callback(lambda _: _discard(result))

    async def _pump(self, result: Awaitable[Any] | None) -> None:
        """`_drain` for asynchronous listeners: the next event waits until one is done with."""
        try:
            while True:
                if result is not None and not self._closed:
                    await self._done(result)
                mail = self._take()
                if mail is None:
                    return
                result = self._call(*mail)
        except asyncio.CancelledError:
            # Not the listener's doing: it was closed, or its loop is shutting down.
            with self._lock:
                self._rest()
            raise
        except BaseException as error:  # noqa: BLE001 - raised elsewhere
            _raise_apart(error)
            wake([self])

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any] | None:
        """Call the listener; returns what is left to wait for, or None.

        Nothing is raised but an exit (Ctrl-C, `sys.exit`) and what a broken log handler raises.
        """
        listener = self._listener()
        if listener is None:
            return None
        try:
            result = listener(*args, **kwargs)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a listener raises is its own affair
            self._failed(error)
            return None
        if result is None or not inspect.isawaitable(result):
            self._consecutive = 0
            return None
        return result

    async def _done(self, result: Awaitable[Any]) -> None:
        """Wait until an asynchronous listener has ended."""
        try:
            await result
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a listener may raise anything, a cancellation as well
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise
            self._failed(error)
        else:
            self._consecutive = 0

    def _failed(self, error: BaseException) -> None:
        """Report a listener that raised: logged once for each kind of error, then only counted."""
        self._consecutive += 1
        kind, text = type(error).__name__, redact(text_of(error))[:500]
        self._failures[kind] += 1
        if self._failures[kind] == 1:
            log.error("listener %s for %r failed", self._name, self.event, exc_info=error)
        emitter = self._emitter()
        # A report about a failing reporter could go on for ever.
        if emitter is not None and not _REPORTS.intersection(self.event.split(", ")):
            emitter.publish(
                ListenerFailed(
                    provider_id=emitter.source_id,
                    event=self.event,
                    listener=self._name,
                    error=ErrorInfo(code="listener_failed", type=kind, message=text),
                    consecutive=self._consecutive,
                )
            )

    def _after_fork(self, lock: threading.RLock) -> None:
        """Begin anew in a child process, where a loop of the parent does not run."""
        self._lock = lock
        self._mailbox = collections.deque()
        self._scheduled, self._task, self._waiters = False, None, []
        if self._loop is not None:
            self.close()


# ---- waking --------------------------------------------------------------------------------------


class _Here(threading.local):
    """What belongs to one thread.

    Attributes:
        depth: how many emitters' locks it holds.
        ready: whom it has to wake once it holds none: a listener must never run under a lock.
        complaining: whether it is logging an unhandled error at the moment.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.ready: list[Subscription] = []
        self.complaining = False

    _after_fork = __init__


here = _Here()
reset_after_fork(here)


class Atomic:
    """Holds an emitter's lock; the thread wakes listeners when it has let go of its last one."""

    __slots__ = ("_lock",)

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()
        here.depth += 1

    def __exit__(self, *exc: object) -> None:
        mine = here
        mine.depth -= 1
        self._lock.release()
        if mine.depth == 0 and mine.ready:
            ready, mine.ready = mine.ready, []
            wake(ready)


def wake(ready: list[Subscription]) -> None:
    """Have mailboxes emptied, by one call for each loop; the inline ones here and now."""
    by_loop: dict[asyncio.AbstractEventLoop | None, list[Subscription]] | None = None
    for subscription in ready:
        if not subscription._inline:
            by_loop = {} if by_loop is None else by_loop
            by_loop.setdefault(subscription._loop, []).append(subscription)
    if by_loop is not None:
        for loop, subscriptions in by_loop.items():
            _hand_over(loop, subscriptions)
    for subscription in ready:
        if subscription._inline:
            subscription._drain_here()


def _hand_over(loop: asyncio.AbstractEventLoop | None, subscriptions: list[Subscription]) -> None:
    try:
        place = _dispatcher.loop if loop is None else loop
        if asyncio._get_running_loop() is place:
            place.call_soon(_drain_each, subscriptions)
        else:
            place.call_soon_threadsafe(_drain_each, subscriptions)
    except RuntimeError:
        # The loop is closed, and nobody is left to listen; or no thread can be started now.
        for subscription in subscriptions:
            subscription._scheduled = False
            if loop is not None:
                subscription.close()


def _drain_each(subscriptions: list[Subscription]) -> None:
    for subscription in subscriptions:
        subscription._drain()


def _raise_apart(error: BaseException) -> None:
    """Raise ``error`` into the running loop, before anything else is delivered."""

    def throw() -> None:
        raise error

    asyncio.get_running_loop().call_soon(throw)


def _discard(result: Awaitable[Any] | None) -> None:
    """Avoid the warning about a coroutine that nobody has awaited."""
    if inspect.iscoroutine(result):
        result.close()


# ---- facts about listeners -----------------------------------------------------------------------


def _check(listener: object, delivery: str, limit: int, batch: int) -> None:
    if not callable(listener):
        raise InvalidParameterError(
            f"a listener must be a function, got {listener!r:.60}",
            hint="on() takes the event first, subscribe() the listener",
        )
    if delivery not in get_args(Delivery):
        raise InvalidParameterError(
            f"delivery must be one of {', '.join(get_args(Delivery))}, got {delivery!r}"
        )
    if limit < 1:
        raise InvalidParameterError(f"limit must be 1 event or more, got {limit!r}")
    if batch < 1 or (batch > 1 and delivery != "inline"):
        raise InvalidParameterError(
            f"batch must be 1 event or more, with delivery='inline', got {batch!r}"
        )


def _loop_here() -> asyncio.AbstractEventLoop | None:
    """The loop to deliver on; None for the dispatcher's, which may be replaced by another."""
    return None if on_dispatcher_thread() else asyncio._get_running_loop()


def _reference(listener: Listener, weak: bool, gone: Callable[[], None]) -> Callable[[], Any]:
    if not weak:
        return lambda: listener
    kind = weakref.WeakMethod if inspect.ismethod(listener) else weakref.ref
    return kind(listener, lambda _: gone())


def _nobody() -> None:
    """The listener of a closed subscription."""


def _described(listener: Listener) -> str:
    """The name of a listener; never its repr, which may show arguments and may fail."""
    function = getattr(listener, "func", listener)  # of functools.partial
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__


def _with_count(mail: Mail, missed: int) -> Mail:
    """``mail`` with the number of events that were dropped before it, if it can tell."""
    args, kwargs = mail
    if args and isinstance(args[0], StatusChanged):
        args = (msgspec.structs.replace(args[0], coalesced=missed), *args[1:])
    return args, kwargs


def _subject(mail: Mail) -> str | None:
    args = mail[0]
    return args[0].provider_id if args and isinstance(args[0], Event) else None
