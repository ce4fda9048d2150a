"""The kit's server: healthy or not, it answers questions by script and everything else by itself.

It runs on a thread of its own, so that a provider that blocks its loop is found out instead of
blocking the server as well.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Self

from ..peer import Answer, Reply, Request, ScriptedPeer

if TYPE_CHECKING:
    from .base import HttpKit


class Gate:
    """Something that an answer waits for, opened from another thread.

    Attributes:
        step: the element for the body of a reply.
        forced: whether nobody had opened it after a while, so that it opened itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, forced_after_s: float) -> None:
        self.step = asyncio.Event()
        self.forced = False
        self._loop = loop
        # On the server's loop: a provider that blocks its own cannot hold this up.
        loop.call_soon_threadsafe(loop.call_later, forced_after_s, self._force)

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self.step.set)

    def _force(self) -> None:
        self.forced = not self.step.is_set()
        self.step.set()


class Server:
    """What stands in for the vendor.

    Attributes:
        strays: requests that fit nothing that the author has described.
    """

    def __init__(self, kit: HttpKit) -> None:
        self.strays: list[Request] = []
        self.model_ids: tuple[str, ...] = (kit.model, "another-model")
        self.model_list: Reply | None = None
        self._kit = kit
        self._plan: deque[Answer] = deque()
        self._refusal: Reply | None = None
        self._peer = ScriptedPeer(fallback=self._serve)

    def __enter__(self) -> Self:
        self._peer.__enter__()
        loop = self._peer._thread.loop
        loop.call_soon_threadsafe(loop.call_later, self._kit.limit_s * 2, self._hang_up)
        return self

    def __exit__(self, *error: object) -> None:
        self._peer.__exit__(*error)

    @property
    def base_url(self) -> str:
        return self._peer.base_url

    @property
    def requests(self) -> list[Request]:
        """Everything that has arrived."""
        return list(self._peer.requests)

    @property
    def questions(self) -> list[Request]:
        """The requests for an answer among them, without model lists and probes."""
        return [request for request in self.requests if self._kit.is_question(request)]

    @property
    def connections_opened(self) -> int:
        return self._peer.connections_opened

    def plays(self, *answers: Answer) -> None:
        """Answer the next questions so; the last answer is given to all further ones, too."""
        self._plan = deque(answers)

    def refuses(self, reply: Reply) -> None:
        """Answer everything with ``reply`` from now on."""
        self._refusal = reply

    def accepts(self) -> None:
        """End what `refuses` began."""
        self._refusal = None

    def gate(self) -> Gate:
        """Something for an answer to wait for."""
        return Gate(self._peer._thread.loop, self._kit.limit_s / 5)

    async def goes_away(self) -> None:
        """Stop listening and close all connections."""
        await self._there(self._peer.stop)

    async def comes_back(self) -> None:
        """Listen again, at the same address."""
        await self._there(self._peer.start)

    async def asked(self, n: int = 1) -> Request:
        """Wait for the ``n``-th question."""
        await self._peer._until(
            lambda: len(self.questions) >= n, f"question {n}", self._kit.limit_s
        )
        return self.questions[n - 1]

    async def left(self, n: int = 1) -> None:
        """Wait until the client has closed ``n`` connections."""
        await self._peer.wait_for_disconnect(n, timeout_s=self._kit.limit_s)

    async def idle(self) -> None:
        """Wait until no connection is open, if that can be expected."""
        if self._kit.keeps_idle_connections:
            return
        await self._peer._until(
            lambda: self._peer.open_connections == 0,
            "the end of all connections",
            self._kit.limit_s,
        )

    async def _there(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        future = asyncio.run_coroutine_threadsafe(work(), self._peer._thread.loop)
        await asyncio.wrap_future(future)

    def _hang_up(self) -> None:
        """Free a provider that blocks its loop while it waits for us; nothing else could."""
        self._stopping = self._peer._thread.loop.create_task(self._peer.stop())

    def _serve(self, request: Request) -> Reply:
        if self._refusal is not None:
            return self._refusal
        path = request.path.partition("?")[0]
        kit = self._kit
        if kit.is_question(request):
            answer = self._plan.popleft() if len(self._plan) > 1 else self._plan[0]
            return answer if isinstance(answer, Reply) else answer(request)
        if path == kit.models_path:
            listed = kit.models(self.model_ids)
            return self.model_list or listed
        routes = kit.routes()
        other = routes.get(path)
        if other is not None:
            return other if isinstance(other, Reply) else other(request)
        self.strays.append(request)
        return kit.error(404, f"nothing at {path}")
