"""Plays a scenario against a real server, through the asynchronous or the synchronous interface."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

import llm_manager
from llm_manager import Backoff, LLMError, LLMProviderStatus, OpenAICompatibleProvider
from llm_manager.events import Event
from llm_manager.messages import LLMStreamEvent
from llm_manager.policy import Stage
from llm_manager.policy.circuit import CircuitBreaker
from llm_manager.policy.limits import ConcurrencyLimit
from llm_manager.stream import LLMStream
from llm_manager.testing import EventRecorder, Request
from llm_manager.testing.clock import FakeClock

from .format import Clock, Failure, Scenario, ScenarioError, Seen, State, Step
from .interfaces import PATIENCE_S, Asynchronous, Interface, Synchronous, without_loop
from .server import ScenarioServer

_WAIT_S = PATIENCE_S - 5
_MEASURES = {"in_flight", "queued", "probes_done"}


async def play_async(scenario: Scenario) -> None:
    """Play it as a program with an event loop would."""
    with ScenarioServer() as server:
        await _Play(scenario, server, Asynchronous()).run()


def play_sync(scenario: Scenario) -> None:
    """Play it as a program without one would."""
    with ScenarioServer() as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        without_loop(_Play(scenario, server, Synchronous(pool)).run())


class _Request:
    """A request, and the moment in which its first word comes."""

    def __init__(self, stream: Callable[..., LLMStream], options: dict[str, Any]) -> None:
        self.heard: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.stream = stream("m", "Hi", options=options, callback=self._take)

    def _take(self, event: LLMStreamEvent) -> None:
        if event.kind == "text" and not self.heard.done():
            self.heard.set_result(None)


class _Play:
    def __init__(self, scenario: Scenario, server: ScenarioServer, interface: Interface) -> None:
        self._scenario = scenario
        self._server = server
        self._interface = interface
        self._clock = FakeClock()
        self._begun: dict[str, concurrent.futures.Future[Any]] = {}
        self._requests: dict[str, _Request] = {}
        settings = self._settings(scenario.provider)
        settings.setdefault("base_url", f"{server.url}/v1")
        settings.setdefault("api_key", "good")
        self._provider = OpenAICompatibleProvider(id="p", clock=self._clock, **settings)
        self._record = EventRecorder(self._provider)

    async def run(self) -> None:
        self._server.behave(self._scenario.server)
        try:
            for number, step in enumerate(self._scenario.steps):
                await self._step(step, f"step {number}")
            await self._interface.call(self._told_all())
        finally:
            self._record.close()
            await self._interface.call(self._provider.close(drain_timeout_s=0))
            for begun in self._begun.values():
                begun.cancel()

    async def _told_all(self) -> None:
        wanted = list(self._scenario.events)
        await _until(lambda: told(self._record) == wanted, timeout_s=2)
        _check("events", told(self._record), wanted)

    async def _step(self, step: Step, where: str) -> None:
        if step.server is not None:
            self._server.behave(step.server)
        elif step.clock is not None:
            _move(self._clock, step.clock)
        elif step.heard is not None:
            await self._interface.result(self._requests[step.heard].heard)
        elif step.end is not None:
            name = step.end
            await self._outcome(step, lambda: self._interface.result(self._begun[name]), where)
        elif step.until is not None:
            await self._interface.call(self._until(step.until, where))
        elif step.expect is not None:
            _check(where, self._facts(self._provider.status, step.expect), _wanted(step.expect))
        elif step.saw is not None:
            await self._interface.call(self._saw(step.saw, where))
        else:
            await self._call(step, where)

    async def _call(self, step: Step, where: str) -> None:
        arguments = self._settings(step.with_)
        if step.call == "cancel":
            assert step.of is not None
            self._requests[step.of].stream.cancel()
        elif step.call == "reconnect_now":
            self._provider.reconnect_now()
        elif step.call == "request":
            request = _Request(self._provider.stream_completion, arguments)
            await self._do(step, lambda: request.stream, where)
            if step.as_ is not None:
                self._requests[step.as_] = request
        else:
            assert step.call is not None
            verb = getattr(self._provider, step.call)
            try:
                work = verb(**arguments)
            except TypeError as mistake:
                raise ScenarioError(f"{where}: {mistake}") from mistake
            await self._do(step, lambda: work, where)

    async def _do(self, step: Step, work: Callable[[], Awaitable[Any]], where: str) -> None:
        if step.as_ is not None:
            self._begun[step.as_] = self._interface.begin(work)
        else:
            await self._outcome(step, lambda: self._interface.call(work()), where)

    async def _outcome(
        self, step: Step, work: Callable[[], Coroutine[Any, Any, Any]], where: str
    ) -> None:
        result = failure = None
        try:
            result = await work()
        except LLMError as error:
            failure = error
        if failure is not None and step.raises is not None:
            _check(where, _facts_of(failure, step.raises), _wanted(step.raises))
        elif failure is not None or step.raises is not None:
            _check(where, failure or result, step.raises)
        if step.text is not None:
            _check(where, result.text, step.text)
        if step.returns is not msgspec.UNSET:
            _check(where, result, step.returns)
        if step.attempts is not None:
            finished = self._record.named("requestFinished")[-1]
            _check(where, finished.attempts, step.attempts)

    async def _until(self, wanted: State, where: str) -> None:
        def holds(now: LLMProviderStatus) -> bool:
            return self._facts(now, wanted) == _wanted(wanted)

        if _MEASURES & {name for name, _ in _wanted(wanted)}:
            await _until(
                lambda: holds(self._provider.status)
            )  # measurements change without an event
        else:
            with contextlib.suppress(TimeoutError):
                await self._provider.wait_for(holds, _WAIT_S)
                return  # it was so at one moment, and may have gone on
        _check(
            where, self._facts(self._provider.status, wanted), _wanted(wanted), told(self._record)
        )

    def _facts(self, now: LLMProviderStatus, wanted: State) -> list[tuple[str, Any]]:
        facts = {
            **msgspec.structs.asdict(now),
            "status": now.status.value,
            "reason": now.reason.value,
            "usable": now.usable,
            "error": None if now.error is None else now.error.code,
            "retry_at": now.retry_at and "set",
            "cooldown_until": now.cooldown_until and "set",
            "probes_done": sum(
                each.phase != "started" for each in self._record.named("healthCheck")
            ),
            "attempt_at_least": min(now.attempt, _or_zero(wanted.attempt_at_least)),
        }
        return [(name, facts[name]) for name, _ in _wanted(wanted)]

    async def _saw(self, wanted: Seen, where: str) -> None:
        await _until(lambda: self._seen(wanted) == _wanted(wanted))
        _check(where, self._seen(wanted), _wanted(wanted))

    def _seen(self, wanted: Seen) -> list[tuple[str, Any]]:
        requests = self._server.requests
        facts = {
            "chats": sum(each.path.endswith("/chat/completions") for each in requests),
            "probes": sum(each.path.endswith("/models") for each in requests),
            "last_key": _key(requests[-1]) if requests else None,
            "open_connections": self._server.open_connections,
        }
        return [(name, facts[name]) for name, _ in _wanted(wanted)]

    def _settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """Arguments for Python, from those of a file."""
        settings = dict(given)
        if "reconnect" in settings:
            settings["reconnect"] = Backoff(**settings["reconnect"])
        if "policies" in settings:
            policies = settings["policies"].items()
            settings["policies"] = [self._policy(name, given) for name, given in policies]
        for name in {"base_url", "proxy"} & settings.keys():
            settings[name] = settings[name].replace("{server}", self._server.url)
        return settings

    def _policy(self, name: str, given: dict[str, Any]) -> Stage:
        if name == "CircuitBreaker":
            return CircuitBreaker(**given, clock=self._clock)
        return {"ConcurrencyLimit": ConcurrencyLimit}[name](**given)


def told(events: list[Event]) -> list[str]:
    """What listeners were told, in the words of a scenario."""
    words: list[str] = []
    status = ""
    scheduled = False
    for event in events:
        if event.name == "statusChanged":
            word = f"{event.current.status} ({event.current.reason})"
            if word != status:
                words.append(word)
                scheduled = False
            status = word
        elif event.name == "requestFinished":
            words.append(f"requestFinished ({event.outcome})")
        elif event.name == "error":
            words.append(f"error ({event.error.code})")
        elif event.name == "reconnectScheduled":
            if not scheduled:
                words.append(event.name)
            scheduled = True
        elif event.name != "healthCheck":
            words.append(event.name)
    return words


async def _until(holds: Callable[[], bool], timeout_s: float = _WAIT_S) -> None:
    """Wait for something that nobody announces; gives up in silence."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.01)


def _check(where: str, seen: object, wanted: object, so_far: Sequence[str] = ()) -> None:
    if seen != wanted:
        after = f", after {list(so_far)}" if so_far else ""
        raise AssertionError(f"{where}: wanted {wanted!r}, but it is {seen!r}{after}")


def _key(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _wanted(given: State | Failure | Seen) -> list[tuple[str, Any]]:
    facts = msgspec.structs.asdict(given).items()
    return [(name, value) for name, value in facts if value is not msgspec.UNSET]


def _facts_of(error: LLMError, wanted: Failure) -> list[tuple[str, Any]]:
    assert hasattr(llm_manager, wanted.type), f"there is no error {wanted.type!r}"
    facts = {
        "type": type(error).__name__,
        "code": error.code,
        "partial": error.partial.text if error.partial else "",
        "retry_at": error.retry_at and "set",
    }
    return [(name, facts[name]) for name, _ in _wanted(wanted)]


def _move(clock: FakeClock, by: Clock) -> None:
    if by.suspend is not None:
        clock.suspend(by.suspend)
    elif by.advance is not None:
        clock.advance(by.advance)
    elif by.set_wall is not None:
        clock.set_wall(by.set_wall)


def _or_zero(number: int | msgspec.UnsetType) -> int:
    return 0 if number is msgspec.UNSET else number
