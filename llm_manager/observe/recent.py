"""`RecentRequests`: the last requests, for a panel that shows what happened."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ..checks import check_number, check_type
from ..emitter import EventEmitter
from ..errors import InvalidParameterError
from ..events import RequestFinished, RequestQueued, RequestStarted, RetryScheduled, StreamStalled
from ..listening import Attachable
from ..messages import Data, LLMRequest
from ..policy import Exchange, Host
from ..subscription import Subscription
from .recent_content import Content, kept
from .recent_record import Entry, RequestRecord

# More texts than so many times the limit are not kept, however many requests run.
_CONTENTS = 10


class RecentSnapshot(Data, frozen=True, kw_only=True):
    """The last requests.

    Attributes:
        revision: grows with every change.
        requests: the newest first.
    """

    revision: int
    requests: tuple[RequestRecord, ...]


class RecentRequests(Attachable):
    """Remembers the last requests: what became of them, how long it took, what held them up.

    ::

        recent = RecentRequests().attach(manager)
        recent.subscribe(lambda revision: redraw(recent.snapshot()))

    With ``content=True`` the texts are kept as well.  Events do not carry them, so the object is
    then also a policy of what it is attached to.

    Args:
        limit: how many requests are remembered; the oldest go first.
        content: keep prompts and answers, in memory only; whatever looks like a key is masked.
        content_limit_characters: how much of each prompt and of each answer.

    Raises:
        InvalidParameterError: a value cannot be.
    """

    listens_to: ClassVar[Mapping[str, str]] = {
        "requestStarted": "_started",
        "retryScheduled": "_noted",
        "requestQueued": "_noted",
        "streamStalled": "_noted",
        "requestFinished": "_finished",
    }
    batch = 64
    around_parts = True
    outermost = True
    only_announced = True

    def __init__(
        self, limit: int = 100, content: bool = False, *, content_limit_characters: int = 10_000
    ) -> None:
        super().__init__()
        check_number("limit", limit, low=1, whole=True)
        check_type("content", content, bool)
        check_number("content_limit_characters", content_limit_characters, low=1, whole=True)
        self._limit = limit
        self._content_limit = content_limit_characters if content else 0
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._revision = 0
        self._changes = EventEmitter()
        self._is_watched = False
        # By the ids of requests, of which some may not be known by their events yet.
        self._contents: dict[str, Content] = {}

    @property
    def revision(self) -> int:
        """Grows with every change, so that who draws can tell whether there is anything new."""
        self.catch_up()
        return self._revision

    def snapshot(self) -> RecentSnapshot:
        """The last requests, the newest first."""
        self.catch_up()
        with self._lock:
            children = self._children()
            newest_first = sorted(self._entries.items(), key=_age, reverse=True)
            return RecentSnapshot(
                revision=self._revision,
                requests=tuple(
                    entry.record(children[id], self._contents.get(id)) for id, entry in newest_first
                ),
            )

    def get(self, request_id: str) -> RequestRecord | None:
        """One request; None if it is not remembered."""
        self.catch_up()
        with self._lock:
            entry = self._entries.get(request_id)
            if entry is None:
                return None
            return entry.record(self._children()[request_id], self._contents.get(request_id))

    def subscribe(self, listener: Callable[[int], Any]) -> Subscription:
        """Call ``listener`` with the revision after changes, on the loop that runs here.

        Changes that come faster than it takes them are put together into one.  The subscription's
        `close` ends it.
        """
        self._is_watched = True
        self._at_once()
        return self._changes.subscribe(listener, "changed", conflate=True)

    def clear(self) -> None:
        """Forget everything."""
        self.catch_up()
        with self._lock:
            self._entries.clear()
            self._contents.clear()
            self._changed()

    # ---- events ----------------------------------------------------------------------------------

    def _started(self, event: RequestStarted) -> None:
        with self._lock:
            self._remember(event)
            self._changed()

    def _noted(self, event: RetryScheduled | RequestQueued | StreamStalled) -> None:
        with self._lock:
            entry = self._entries.get(event.request_id)
            if entry is not None:
                entry.note(event)
                self._changed()

    def _finished(self, event: RequestFinished) -> None:
        with self._lock:
            entry = self._entries.get(event.request_id)
            if entry is None:
                self._remember(event)
            else:
                entry.finished = event
            self._changed()

    # ---- content ---------------------------------------------------------------------------------

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        """As a policy: changes nothing, and keeps what is said if content is kept."""
        return kept(exchange, self._content_of) if self._content_limit else exchange

    def _content_of(self, request: LLMRequest) -> Content | None:
        if not self._attached:
            return None
        content = self._contents[request.id] = Content(request, self._content_limit)
        if len(self._contents) > self._limit + 2 * self.batch:
            self._forget_contents_except(request.id)
        return content

    def _forget_contents_except(self, request_id: str) -> None:
        """Forget those of requests that have ended and are not remembered, of this one apart."""
        self.catch_up()
        for id, content in list(self._contents.items()):
            if id not in self._entries and id != request_id and content.ended:
                self._contents.pop(id, None)
        for id in list(self._contents)[: -_CONTENTS * self._limit]:  # of those that never began
            self._contents.pop(id, None)

    def _before_attaching(self, emitter: EventEmitter) -> None:
        if not self._content_limit:
            return
        add_policy = getattr(emitter, "add_policy", None)
        if add_policy is None:
            raise InvalidParameterError(
                f"{emitter!r:.60} sends no requests, so their content cannot be kept",
                hint="attach a provider or a manager",
            )
        add_policy(self)

    def _after_detaching(self, emitter: EventEmitter) -> None:
        remove_policy = getattr(emitter, "remove_policy", None)
        if self._content_limit and remove_policy is not None:
            remove_policy(self)
        with self._lock:
            for entry in self._entries.values():
                entry.lost = True
            self._changed()

    # ---- inside ----------------------------------------------------------------------------------

    def _remember(self, event: RequestStarted | RequestFinished) -> None:
        if len(self._entries) >= self._limit:
            oldest, entry = self._entries.popitem(last=False)
            if entry.finished is not None:  # otherwise it comes back when it ends
                self._contents.pop(oldest, None)
        self._entries[event.request_id] = Entry(event)

    def _changed(self) -> None:
        self._revision += 1
        if self._is_watched:
            self._changes.emit("changed", self._revision)

    def _children(self) -> defaultdict[str, tuple[str, ...]]:
        children: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
        for id, entry in self._entries.items():
            if entry.first.parent_id is not None:
                children[entry.first.parent_id] += (id,)
        return children


def _age(item: tuple[str, Entry]) -> float:
    return item[1].started_at.timestamp()
