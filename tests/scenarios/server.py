"""The server of a scenario: real sockets, on a thread of its own, and it does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import msgspec

from llm_manager._threads import LoopThread
from llm_manager.testing import Reply, Request, ScriptedPeer

from .format import Behaviour, Server

WORDS = ("Hello", " there.")
"""Every answer; the text of both together is `ANSWER`."""
ANSWER = "".join(WORDS)

_USUAL = Behaviour()


class ScenarioServer:
    """Speaks the OpenAI dialect, as well or as badly as it is told."""

    def __init__(self) -> None:
        self._peer = ScriptedPeer(fallback=self._answer)
        self._thread = LoopThread("scenario-server")
        self._models = self._chat = _USUAL
        self._key: str | None = None
        self._released = asyncio.Event()
        self._muted = 0  # connections up to this number are not answered any more

    def __enter__(self) -> ScenarioServer:
        self._up = True
        self._run(self._peer.start())  # also when it shall be down: it needs a port of its own
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._peer.stop())
        self._thread.stop()

    @property
    def url(self) -> str:
        return self._peer.base_url

    @property
    def requests(self) -> list[Request]:
        return list(self._peer.requests)

    @property
    def open_connections(self) -> int:
        return self._peer.open_connections

    def behave(self, how: str | Server) -> None:
        """See `format.Step.server`."""
        if how == "down":
            self._up = False
            self._run(self._peer.stop())
        elif how == "drop_idle":
            self._run(self._peer.close_idle_connections())
        elif how == "mute_idle":
            self._muted = self._peer.connections_opened
        elif how == "release":
            self._run(self._release())
        else:
            given = Server() if isinstance(how, str) else how
            self._models = given.models or given.all or _USUAL
            self._chat = given.chat or given.all or _USUAL
            self._key = given.key
            if not self._up:
                self._up = True
                self._run(self._peer.start())

    async def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._thread.loop).result(10)

    def _answer(self, request: Request) -> Reply:
        if request.connection <= self._muted:
            return Reply(instead="hang")
        if self._key is not None and request.headers.get("authorization") != f"Bearer {self._key}":
            return _refusal(Behaviour(status=401))
        if request.path.endswith("/models"):
            how, self._models = self._models, _next(self._models)
            return _played(how, lambda: Reply.json({"data": _models(how)}))
        how, self._chat = self._chat, _next(self._chat)
        return _played(how, lambda: self._words(how))

    def _words(self, how: Behaviour) -> Reply:
        first, second = (_piece(word) for word in WORDS)
        if how.break_off:
            return Reply.sse([first], ending="close")
        pause = [self._released] if how.hold else []
        return Reply.sse([first, *pause, second, _piece("", finish="stop"), "[DONE]"])


def _next(how: Behaviour) -> Behaviour:
    """The behaviour after this one was played once."""
    if how.times is None:
        return how
    left = how.times - 1
    return msgspec.structs.replace(how, times=left) if left else _USUAL


def _played(how: Behaviour, good: Callable[[], Reply]) -> Reply:
    if how.hang:
        return Reply(instead="hang")
    if how.body == "html":
        page = b"<!doctype html><html><title>Welcome to the hotel</title>Sign in</html>"
        return Reply(status=how.status, headers={"content-type": "text/html"}, body=[page])
    reply = good() if how.status == 200 else _refusal(how)
    return replace(reply, body=[how.after_s, *reply.body]) if how.after_s else reply


def _refusal(how: Behaviour) -> Reply:
    headers = {} if how.retry_after is None else {"retry-after": how.retry_after}
    text = how.says or f"this is the answer {how.status}"
    error = {"error": {"message": text, "type": "scenario"}}
    return Reply.json(error, status=how.status, headers=headers)


def _models(how: Behaviour) -> list[dict[str, str]]:
    return [] if how.body == "no_models" else [{"id": "m", "object": "model"}]


def _piece(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
