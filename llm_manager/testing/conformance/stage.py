"""Runs one check: an event loop of its own, a server, providers, and a look at what is left."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ...errors import LLMError
from ...events import RequestFinished
from ...machine import StatusMachine
from ...provider import BaseLLMProvider
from ...status import LEGAL_TRANSITIONS
from ...supervisor import Backoff
from ..recorder import EventRecorder
from .expect import ConformanceError, expect
from .server import Server
from .wire import Wanted

if TYPE_CHECKING:
    from .base import Conformance

    KitT = TypeVar("KitT", bound=Conformance)
else:
    KitT = TypeVar("KitT")
P = ParamSpec("P")

# Threads that stay: those of this library, and the pools that asyncio and AnyIO keep.
_LASTING_THREADS = (
    "llm-manager", "llm_manager", "asyncio_", "AnyIO worker thread", "scripted-peer",
)  # fmt: skip


class Stage:
    """The surroundings of one check.

    Args:
        kit: whose check it is.
        server: what stands in for the vendor, or None for a provider without one.
    """

    def __init__(self, kit: Conformance, server: Server | None) -> None:
        self.kit = kit
        self._server = server
        self._providers: list[tuple[BaseLLMProvider, EventRecorder]] = []
        self._background: list[str] = []
        self._before: set[asyncio.Task[Any]] = set()

    @property
    def server(self) -> Server:
        """The server; only checks of providers on HTTP have one."""
        assert self._server is not None
        return self._server

    def make(self, **settings: Any) -> BaseLLMProvider:
        """A provider of the author's, watched and closed at the end of the check."""
        settings.setdefault("reconnect", Backoff(first_s=0.01, max_s=0.05))
        settings.setdefault("default_options", {"retries": {"wait_s": 0.0, "wait_max_s": 0.0}})
        provider = self.kit.build(self._server, settings)
        expect(
            isinstance(provider, BaseLLMProvider),
            f"make_provider() must return a BaseLLMProvider, got {provider!r:.80}",
        )
        self._providers.append((provider, EventRecorder(provider)))
        return provider

    def events_of(self, provider: BaseLLMProvider) -> EventRecorder:
        """What a provider of this check has published so far."""
        return next(record for known, record in self._providers if known is provider)

    def plays(self, provider: BaseLLMProvider, wanted: Wanted) -> bool:
        """Arrange the answer to the next questions; says whether that is possible."""
        return self.kit.arrange(self._server, provider, wanted)

    async def finished(self, provider: BaseLLMProvider) -> RequestFinished:
        """The announcement that the provider's only request has ended, as soon as it is there."""
        await self.events_of(provider).wait_for("requestFinished", timeout_s=self.kit.limit_s / 2)
        announced = self.events_of(provider).named("requestFinished")
        expect(
            len(announced) == 1,
            f"one request has ended, and requestFinished came {len(announced)} times",
        )
        last: RequestFinished = announced[0]
        return last

    # ---- around the check ------------------------------------------------------------------------

    def begin(self) -> None:
        self._before = asyncio.all_tasks()
        asyncio.get_running_loop().set_exception_handler(self._failed_in_background)

    def _failed_in_background(
        self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]
    ) -> None:
        error = context.get("exception")
        self._background.append(f"{context.get('message')}: {error!r}")

    async def close_all(self) -> None:
        for provider, _ in self._providers:
            await provider.close(0)

    async def look_for_leftovers(self) -> None:
        """Fail if something is still there although every provider is closed, or went wrong."""
        for provider, events in self._providers:
            _expect_no_defect(provider, events)
            _expect_balanced_requests(provider, events)
            _expect_legal_statuses(provider, events)
        await self._expect_no_tasks()
        if self._server is not None:
            await self._server.idle()
            expect(
                not self._server.strays,
                "the provider asks for a path that the kit's class does not name: "
                f"{sorted({f'{r.method} {r.path}' for r in self._server.strays})}",
            )
        expect(not self._background, f"something failed in the background: {self._background}")

    async def _expect_no_tasks(self) -> None:
        left = asyncio.all_tasks() - self._before
        if left:
            # What was just cancelled may take some turns of the loop to end.
            _, left = await asyncio.wait(left, timeout=self.kit.limit_s / 10)
        names = sorted(f"{task.get_name()} in {_place_of(task)}" for task in left)
        expect(not left, f"tasks still run after close(): {names}")


def _place_of(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return getattr(coroutine, "__qualname__", repr(coroutine))


def _expect_no_defect(provider: BaseLLMProvider, events: EventRecorder) -> None:
    for event in events.named("error"):
        if event.operation == "close":
            raise ConformanceError(
                f"_close of {provider!r} raised {event.error.type}: {event.error.message}; "
                "it must release what it can and not raise"
            )
        if event.error.code == "unexpected":
            raise ConformanceError(
                f"{provider!r} failed in the background ({event.operation}): {event.error.message}"
            )


def _expect_balanced_requests(provider: BaseLLMProvider, events: EventRecorder) -> None:
    started = [event.request_id for event in events.named("requestStarted")]
    finished = [event.request_id for event in events.named("requestFinished")]
    expect(
        sorted(started) == sorted(finished),
        f"every request must be announced as finished exactly once: started {started}, "
        f"finished {finished}",
    )
    expect(
        provider.status.in_flight == 0,
        f"{provider.status.in_flight} requests count as running after all have ended",
    )


def _expect_legal_statuses(provider: BaseLLMProvider, events: EventRecorder) -> None:
    changes = events.named("statusChanged")
    for earlier, later in itertools.pairwise(changes):
        expect(
            later.current.seq == earlier.current.seq + 1,
            f"the sequence numbers of {provider!r} have a gap: {earlier.current.seq}, then "
            f"{later.current.seq}",
        )
    for change in changes:
        before, after = change.previous.status, change.current.status
        expect(
            before is after or after in LEGAL_TRANSITIONS[before],
            f"{provider!r} went from {before} to {after}, which is no legal step",
        )


def check(
    method: Callable[Concatenate[KitT, Stage, P], Awaitable[None]],
) -> Callable[Concatenate[KitT, P], None]:
    """Make a plain test method of a coroutine function that takes a `Stage`."""

    def run(kit: KitT, /, *args: P.args, **kwargs: P.kwargs) -> None:
        __tracebackhide__ = True
        threads = set(threading.enumerate())
        with _strict_transitions(), kit.surroundings() as server:
            asyncio.run(_performed(kit, server, lambda stage: method(kit, stage, *args, **kwargs)))
        left = [t.name for t in threading.enumerate() if t not in threads and not _lasts(t)]
        expect(not left, f"threads still run after close(): {left}")

    # Not `functools.wraps`: pytest would follow its trace and take `stage` for a fixture.
    functools.update_wrapper(run, method)
    del run.__wrapped__  # type: ignore[attr-defined]
    signature = inspect.signature(method)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p for p in signature.parameters.values() if p.name != "stage"]
    )
    return run


async def _performed(
    kit: Conformance, server: Server | None, work: Callable[[Stage], Awaitable[None]]
) -> None:
    __tracebackhide__ = True
    stage = Stage(kit, server)
    stage.begin()
    limit = asyncio.timeout(kit.limit_s * 2)
    try:
        async with limit:
            await work(stage)
    except TimeoutError:
        if not limit.expired():
            raise
        raise ConformanceError(f"it did not come to an end within {kit.limit_s * 2:g} s") from None
    except LLMError as error:
        raise ConformanceError(f"it should work, but raises {error!r}") from error
    finally:
        await stage.close_all()
    await stage.look_for_leftovers()


def _lasts(thread: threading.Thread) -> bool:
    return thread.name.startswith(_LASTING_THREADS)


@contextmanager
def _strict_transitions() -> Iterator[None]:
    before, StatusMachine.strict = StatusMachine.strict, True
    try:
        yield
    finally:
        StatusMachine.strict = before
