"""What a composite has to do with its members, besides asking them.

A member that no manager holds belongs to the composite: it is connected, disconnected and closed
with it, and what it announces of the composite's requests is announced by the composite as well.
One that a manager holds is left alone, for it has an owner, and announces there.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ..concurrency import gather_with_concurrency
from ..errors import LLMError
from ..events import ModelsChanged, StatusChanged
from ..messages import LLMRequest
from ..policy import Stage
from ..provider import BaseLLMProvider
from ..status import ProviderStatus
from ..subscription import Subscription
from .announcing import OF_REQUESTS, Announcer, is_free
from .handing import HandedOn, handed_on
from .standing import DOWN


class Members:
    """Starts, stops and listens to the members of one composite.

    Args:
        composite: announces what its members announce of its requests.
        asked: tells of an id whether it is that of a request of the composite.
        on_status, on_models: called when status or models of a member have changed.
    """

    def __init__(
        self,
        composite: BaseLLMProvider,
        asked: Callable[[str], bool],
        *,
        on_status: Callable[[], None],
        on_models: Callable[[], None],
    ) -> None:
        self._composite = weakref.ref(composite)
        self._announcer = partial(Announcer, weakref.ref(composite), asked)
        self._on_status = on_status
        self._on_models = on_models
        self._held: dict[object, tuple[BaseLLMProvider, ...]] = {}
        self._handed: dict[BaseLLMProvider, list[HandedOn]] = {}
        self._listening: dict[BaseLLMProvider, tuple[Announcer, list[Subscription]]] = {}

    @property
    def composite(self) -> BaseLLMProvider | None:
        """Whose members these are, rather than a copy of it with other settings."""
        return self._composite()

    async def start(self, hold: object, members: Sequence[BaseLLMProvider]) -> None:
        """Listen to ``members`` until ``hold`` is stopped, and begin to connect free ones."""
        with _users_lock:
            self._held[hold] = tuple(members)
            for member in members:
                _users.setdefault(member, weakref.WeakSet()).add(self)
                if member not in self._listening:
                    self._listening[member] = self._listen_to(member)
        await self.wake(members)

    async def wake(self, members: Iterable[BaseLLMProvider]) -> None:
        """Begin to connect those that no manager holds, unless somebody has done so."""
        for member in members:
            word = member.status.status
            if is_free(member) and not word.live and word is not ProviderStatus.CLOSED:
                with contextlib.suppress(LLMError):  # it is being closed; others may be there
                    await member.connect(wait="none")

    async def stop(self, hold: object) -> None:
        """Undo one `start`, if that is not done yet; what others hold goes on."""
        with _users_lock:
            members = self._held.pop(hold, ())
            over = [m for m in members if not any(m in held for held in self._held.values())]
            for member in over:
                _users[member].discard(self)
                _, subscriptions = self._listening.pop(member)
                for subscription in subscriptions:
                    subscription.close()
        await gather_with_concurrency(None, [m.disconnect(0) for m in self._own(over)])

    async def close(self, members: Iterable[BaseLLMProvider]) -> None:
        """Close those that no manager holds, and no other composite that runs."""
        await gather_with_concurrency(None, [member.close(0) for member in self._own(members)])

    def _own(self, members: Iterable[BaseLLMProvider]) -> list[BaseLLMProvider]:
        with _users_lock:
            return [m for m in members if is_free(m) and not _users.get(m)]

    def _listen_to(self, member: BaseLLMProvider) -> tuple[Announcer, list[Subscription]]:
        # Weakly: a member that lives longer must not keep a composite that nobody refers to.
        announcer = self._announcer(member)
        # One for all events of requests, which keeps their order.
        listeners: list[tuple[Callable[[Any], None], tuple[str, ...]]] = [
            (self._status_changed, (StatusChanged.name,)),
            (self._models_changed, (ModelsChanged.name,)),
            (announcer.hear, tuple(kind.name for kind in OF_REQUESTS)),
        ]
        return announcer, [
            member.subscribe(listener, names, delivery="inline", weak=True)
            for listener, names in listeners
        ]

    def _status_changed(self, event: StatusChanged) -> None:
        self._on_status()

    def _models_changed(self, event: ModelsChanged) -> None:
        self._on_models()

    def hand_on(self, stages: Sequence[Stage], members: Sequence[BaseLLMProvider]) -> None:
        """Put policies that are ``around_parts`` around ``members``, in the place of those that it
        had put there, or around others, before."""
        for member in dict.fromkeys([*self._handed, *members]):
            free = is_free(member)
            ours = []
            if member in members:
                ours = handed_on(stages, self._request, member, announced=free)
            with member.atomic():
                for stage in self._handed.pop(member, ()):
                    member.remove_policy(stage)
                for stage in reversed(ours):
                    member.add_policy(stage)
            if ours:
                self._handed[member] = ours

    def _request(self, id: str) -> LLMRequest | None:
        """The composite's request of that id, while it runs."""
        composite = self._composite()
        running = None if composite is None else composite._running.get(id)
        return None if running is None else running[0].request


def is_worth_asking(member: BaseLLMProvider) -> bool:
    """Whether it may answer right now: it is not lost, failed or stopping, nor left alone."""
    state = member.status
    return state.status not in DOWN and state.cooldown_until is None and state.circuit != "open"


_users: weakref.WeakKeyDictionary[BaseLLMProvider, weakref.WeakSet[Members]] = (
    weakref.WeakKeyDictionary()
)
"""Which composites hold a member at present, on whichever loops they run."""
_users_lock = threading.RLock()  # listeners are called under it
